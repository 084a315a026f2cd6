//! Local clients of one shard, and what is sent to them.
//!
//! Invariants
//! - A client id is never reused and tells its shard: `id % shard count`.
//! - A client that does not read is closed at [`super::limits::CLIENT_OUTPUT_MAX`] bytes; nothing
//!   it asked for is half done by that (its calls go on in the cluster).

use std::collections::HashMap;

use ringmaster_protocol::{
    Destination, Generation, Packet, PacketStyle, Pnn, Reqid, control_packet::ReplyControl,
    header::Envelope,
};
use ringmaster_transport::{
    frames::Assembly,
    reactor::{AnyReactor, Reactor, Token},
};

use super::{ShardId, limits::CLIENT_OUTPUT_MAX};
use crate::record::ClientId;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) token: Token,
    pub(super) pid: i32,
    /// Taken out while its packets are processed.
    pub(super) assembly: Option<Assembly>,
}

/// All connections of a shard.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) by_id: HashMap<ClientId, Client>,
    pub(super) by_token: HashMap<Token, ClientId>,
    /// Did not read and have to be closed at the end of the turn.
    pub(super) overfull: Vec<ClientId>,
    shard: ShardId,
    shards: u32,
    next: u32,
}

/// What stands in every packet to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) pnn: Pnn,
    pub(super) generation: Generation,
}

impl Sender {
    /// C sends destination 0 and its own number as source, whatever the origin.
    pub(super) fn envelope(self, reqid: Reqid) -> Envelope {
        Envelope {
            generation: self.generation,
            destination: Destination::from_raw(0),
            source: Destination::Node(self.pnn),
            reqid,
        }
    }
}

/// The shard of a client.
pub(super) fn shard_of(client: ClientId, shards: u32) -> ShardId {
    ShardId(u16::try_from(client.0 % shards).unwrap_or(u16::MAX))
}

impl Clients {
    pub(super) fn new(shard: ShardId, shards: u16) -> Self {
        Self {
            by_id: HashMap::new(),
            by_token: HashMap::new(),
            overfull: Vec::new(),
            shard,
            shards: u32::from(shards),
            next: 0,
        }
    }

    pub(super) fn add(&mut self, token: Token, pid: i32, assembly: Assembly) -> ClientId {
        // Never 0, which means "another daemon" (C); after 2^32 / shards connections it starts
        // again, and passes over clients that are still there.
        let id = loop {
            self.next = self.next.wrapping_add(1);
            let raw = self.next.wrapping_mul(self.shards).wrapping_add(u32::from(self.shard.0));
            let id = ClientId(raw & 0x7FFF_FFFF);
            let ours = shard_of(id, self.shards) == self.shard;
            if id.0 != 0 && ours && !self.by_id.contains_key(&id) {
                break id;
            }
        };
        self.by_id.insert(id, Client { token, pid, assembly: Some(assembly) });
        self.by_token.insert(token, id);
        id
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.by_id.remove(&id)?;
        self.by_token.remove(&client.token);
        Some(client)
    }

    /// Appends what `write` writes to the client's output. `false` when the client is gone.
    pub(super) fn append(
        &mut self,
        reactor: &mut AnyReactor,
        id: ClientId,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(client) = self.by_id.get(&id) else { return false };
        let Some(output) = reactor.output(client.token) else { return false };
        write(output);
        if output.len() > CLIENT_OUTPUT_MAX {
            self.overfull.push(id);
        }
        true
    }

    /// Sends a reply to a control. `false` when the client is gone.
    pub(super) fn reply_control(
        &mut self,
        reactor: &mut AnyReactor,
        sender: Sender,
        id: ClientId,
        reqid: Reqid,
        reply: ReplyControl<'_>,
    ) -> bool {
        self.append(reactor, id, |out| {
            Packet::ReplyControl(reply).encode_into(
                out,
                sender.envelope(reqid),
                PacketStyle::Daemon,
            );
        })
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_transport::local::CLIENT_FRAMING;
    use rustix::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_id_tells_its_shard_and_is_never_zero() {
        let mut reactor =
            AnyReactor::new(ringmaster_transport::reactor::ReactorKind::Epoll).expect("epoll");
        for shards in [1_u16, 2, 3, 4] {
            for shard in 0..shards {
                let mut clients = Clients::new(ShardId(shard), shards);
                // Close to the wrap.
                clients.next = u32::MAX / u32::from(shards) - 1;
                for _ in 0..4 {
                    let (ours, _theirs) = UnixStream::pair().expect("a pair");
                    let token = reactor.add_stream(OwnedFd::from(ours)).expect("added");
                    let id = clients.add(token, 1, Assembly::new(CLIENT_FRAMING));
                    assert_ne!(id.0, 0);
                    assert_eq!(shard_of(id, u32::from(shards)), ShardId(shard));
                }
                assert_eq!(clients.by_id.len(), 4);
            }
        }
    }
}
