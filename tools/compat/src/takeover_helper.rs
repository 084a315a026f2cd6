//! C's takeover helper in front of a daemon that is made up: what it decides, and how long it
//! thinks.
//!
//! Role: the helper is the program that places public addresses. [`run`] gives it a socket behind
//! which every node of a cluster answers, and records what it orders. So any situation can be put
//! to C, whatever real daemons would get into.
//! Owner: whoever calls; the helper has ended when [`run`] returns.
//! Origin: `docs/spec/cluster-semantics.md` 9.8; `ctdb/server/ctdb_takeover_helper.c`.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ringmaster_protocol::{
    Destination, Encode, Packet, PacketStyle, Pnn,
    connection::{PublicIp, PublicIpList},
    control::{ControlOpcode, ControlRequest},
    control_packet::{ControlFlags, ReplyControl},
    header::{Envelope, Frame, Framing, Transport},
    node::{NodeFlags, NodeMap},
    tunable::TunableList,
};

use crate::prerequisite::C_HELPERS;

/// The helper gives up by itself long before.
const TIMEOUT: Duration = Duration::from_secs(120);

/// It connects first of all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest packet that the helper may send.
const PACKET_LEN_MAX: u32 = 1 << 24;

/// What one node answers.
#[derive(Clone, Debug, Default)]
pub struct NodeAnswers {
    /// GET_PUBLIC_IPS.
    pub known: PublicIpList,
    /// The same, only those that it could host.
    pub available: PublicIpList,
}

/// A situation.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The leader's node map; node 0 leads.
    pub nodes: NodeMap,
    /// One entry per node.
    pub answers: Vec<NodeAnswers>,
    /// The leader's tunables.
    pub tunables: TunableList,
    /// Nodes to be balanced.
    pub rebalance: Vec<Pnn>,
}

/// What the helper has done.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// RELEASE_IP: to whom, what.
    pub releases: Vec<(Pnn, PublicIp)>,
    /// TAKEOVER_IP: to whom, what.
    pub takeovers: Vec<(Pnn, PublicIp)>,
    /// IPREALLOCATED: to whom.
    pub announced: Vec<Pnn>,
    /// From its last question to its first order.
    pub thinking: Duration,
}

/// Puts a situation to the helper.
///
/// # Errors
/// It cannot be started, hangs, fails, or says something that no helper says.
pub fn run(situation: &Situation) -> Result<Orders> {
    let directory = tempfile::tempdir().context("cannot make a directory for the socket")?;
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).context("cannot listen for the helper")?;
    let rebalance: Vec<String> = situation.rebalance.iter().map(|pnn| pnn.to_string()).collect();
    let mut helper = Command::new(PathBuf::from(C_HELPERS).join("ctdb_takeover_helper"))
        .env_clear()
        // Without it does not start.
        .envs([("CTDB_LOGGING", "file:/dev/null"), ("CTDB_DEBUGLEVEL", "ERR")])
        .arg("1")
        .arg(&path)
        .args((!rebalance.is_empty()).then(|| rebalance.join(",")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start ctdb_takeover_helper")?;
    let served = serve(&listener, situation);
    if served.is_err() {
        // It would wait for ever.
        let _ = helper.kill();
    }
    let output = helper.wait_with_output().context("cannot wait for the helper")?;
    let orders = served?;
    // An int, as to the recovery daemon.
    if output.stdout != [0; 4] {
        bail!("the helper says {:?}", output.stdout);
    }
    Ok(orders)
}

fn serve(listener: &UnixListener, situation: &Situation) -> Result<Orders> {
    listener.set_nonblocking(true)?;
    let mut stream = crate::run::wait_until("the helper's connection", CONNECT_TIMEOUT, || {
        listener.accept().ok().map(|(stream, _)| stream)
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut served = Served { situation, orders: Orders::default(), answered: Instant::now() };
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    let framing = Framing { transport: Transport::Local, packet_len_max: PACKET_LEN_MAX };
    loop {
        let len = stream.read(&mut chunk).context("the helper hangs")?;
        if len == 0 {
            return Ok(served.orders);
        }
        buffer.extend_from_slice(&chunk[..len]);
        let mut used = 0;
        let mut replies = Vec::new();
        while let Frame::Packet { bytes, .. } = framing.next_frame(&buffer[used..])? {
            served.packet(bytes, &mut replies)?;
            used += bytes.len();
        }
        buffer.drain(..used);
        served.send(&mut stream, &replies)?;
    }
}

struct Served<'a> {
    situation: &'a Situation,
    orders: Orders,
    /// When the last question was answered.
    answered: Instant,
}

impl Served<'_> {
    fn send(&mut self, stream: &mut UnixStream, replies: &[u8]) -> Result<()> {
        stream.write_all(replies).context("the helper does not read")?;
        if self.orders.thinking.is_zero() {
            self.answered = Instant::now();
        }
        Ok(())
    }

    fn packet(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> Result<()> {
        let (header, packet) = Packet::decode(bytes)?;
        // Messages are reports about nodes that fail; none does.
        let Packet::ReqControl(control) = packet else { return Ok(()) };
        let to = match header.envelope.destination {
            Destination::Node(pnn) => pnn,
            Destination::Current => Pnn::new(0).context("0 is a node")?,
            other => bail!("a control to {other:?}"),
        };
        let request = ControlRequest::decode(ControlOpcode(control.opcode), control.data)?;
        let (status, data) = self.answer(to, control.flags, &request)?;
        if control.flags.contains(ControlFlags::NOREPLY) {
            return Ok(());
        }
        let Envelope { generation, reqid, .. } = header.envelope;
        let envelope = Envelope {
            generation,
            destination: header.envelope.source,
            source: Destination::Node(to),
            reqid,
        };
        let reply = Packet::ReplyControl(ReplyControl { status, data: &data, error: &[] });
        reply.encode_into(replies, envelope, PacketStyle::Daemon);
        Ok(())
    }

    fn answer(
        &mut self,
        to: Pnn,
        flags: ControlFlags,
        request: &ControlRequest<'_>,
    ) -> Result<(i32, Vec<u8>)> {
        let index = usize::try_from(to.get())?;
        Ok(match request {
            ControlRequest::GetPnn => (to.get().cast_signed(), Vec::new()),
            ControlRequest::GetAllTunables => (0, self.situation.tunables.to_bytes()),
            ControlRequest::GetNodeMap => (0, self.situation.nodes.to_bytes()),
            ControlRequest::GetPublicIps => {
                let answers = self.situation.answers.get(index).context("an unknown node")?;
                let available = flags.contains(ControlFlags::ONLY_AVAILABLE);
                let list = if available { &answers.available } else { &answers.known };
                (0, list.to_bytes())
            }
            ControlRequest::ReleaseIp(ip) => {
                self.ordered();
                self.orders.releases.push((to, *ip));
                (0, Vec::new())
            }
            ControlRequest::TakeoverIp(ip) => {
                self.ordered();
                self.orders.takeovers.push((to, *ip));
                (0, Vec::new())
            }
            ControlRequest::Ipreallocated => {
                self.ordered();
                self.orders.announced.push(to);
                (0, Vec::new())
            }
            other => bail!("the helper asks {:?}", other.opcode()),
        })
    }

    fn ordered(&mut self) {
        if self.orders.thinking.is_zero() {
            self.orders.thinking = self.answered.elapsed();
        }
    }
}

/// A node map in which every node has these flags.
#[must_use]
pub fn node_map(flags: &[NodeFlags]) -> NodeMap {
    use ringmaster_protocol::{SockAddr, node::NodeAndFlags};
    let entry = |(flags, pnn): (&NodeFlags, u32)| {
        let addr = SockAddr::new(std::net::IpAddr::from([127, 0, 0, 1]), 4379);
        Pnn::new(pnn).map(|pnn| NodeAndFlags { pnn, flags: *flags, addr })
    };
    NodeMap(flags.iter().zip(0..).filter_map(entry).collect())
}
