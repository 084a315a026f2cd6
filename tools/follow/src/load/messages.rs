//! Messages from every node to every node: all arrive, once and in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ringmaster_client::{Client, ReceiveError};
use ringmaster_protocol::{Destination, Srvid};

use super::Work;
use crate::life::{Life, pnn};

/// The srvid of node 0; the others follow.
const BASE: u64 = 0xAE00_F011_0000_0000;

/// What was sent to every node from every node, for scenarios that break no connection.
#[derive(Clone, Debug)]
pub struct Messages {
    nodes: Vec<usize>,
    /// Whether every node's srvid is registered: before that, messages go nowhere.
    registered: Arc<AtomicU32>,
    sent: Arc<Mutex<BTreeMap<(usize, usize), u32>>>,
    received: Arc<Mutex<BTreeMap<(usize, usize), u32>>>,
}

struct Messaging {
    messages: Messages,
    node: usize,
}

fn srvid(node: usize) -> Srvid {
    Srvid(BASE + node as u64)
}

impl Messages {
    /// Between all nodes of `life`.
    #[must_use]
    pub fn new(life: &Life) -> Self {
        Self {
            nodes: life.nodes(),
            registered: Arc::default(),
            sent: Arc::default(),
            received: Arc::default(),
        }
    }

    /// The worker of one node; each needs one.
    #[must_use]
    pub fn messaging(&self, node: usize) -> impl Work + use<> {
        Messaging { messages: self.clone(), node }
    }

    fn everybody_listens(&self) -> bool {
        self.registered.load(Ordering::Acquire) as usize >= self.nodes.len()
    }

    /// Everything sent before has come, but for the last messages, which the end cut off: of each
    /// sender some must have.
    ///
    /// # Errors
    /// From one node nothing came to another.
    pub fn check(&self) -> Result<()> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        for (way, count) in sent.iter() {
            let arrived = received.get(way).copied().unwrap_or(0);
            ensure!(
                arrived > 0 && arrived <= *count,
                "{arrived} of {count} messages arrived on the way {way:?}"
            );
        }
        Ok(())
    }
}

impl Work for Messaging {
    type Tool = ();

    fn begin(&mut self, client: &mut Client) -> Result<()> {
        client.register(srvid(self.node))?;
        // What came while nobody listened here is lost, and may be; so is what the client before
        // this one sent last: C's daemon drops what it has not looked at when a client goes.
        let mut received = self.messages.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.retain(|(from, to), _| *to != self.node && *from != self.node);
        self.messages.registered.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn round(&mut self, client: &mut Client, (): &mut ()) -> Result<()> {
        if self.messages.everybody_listens() {
            for to in self.messages.nodes.clone() {
                let mut sent = self.messages.sent.lock().unwrap_or_else(PoisonError::into_inner);
                let count = sent.entry((self.node, to)).or_default();
                *count += 1;
                let mut data = count.to_le_bytes().to_vec();
                data.push(self.node.to_le_bytes()[0]);
                drop(sent);
                client.send_message(Destination::Node(pnn(to)), srvid(to), &data)?;
            }
        }
        loop {
            let message = match client.receive_to(srvid(self.node), Duration::from_millis(1)) {
                Ok(message) => message,
                Err(ReceiveError::TimedOut { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let [a, b, c, d, from] = message.data[..] else {
                bail!("a message is damaged: {:x?}", message.data);
            };
            let number = u32::from_le_bytes([a, b, c, d]);
            let way = (usize::from(from), self.node);
            let mut received =
                self.messages.received.lock().unwrap_or_else(PoisonError::into_inner);
            let before = received.insert(way, number);
            ensure!(
                before.is_none_or(|before| number == before + 1),
                "message {number} of node {from} came to node {} after {before:?}",
                self.node
            );
        }
    }
}
