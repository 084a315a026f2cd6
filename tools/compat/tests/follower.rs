//! What a node answers to another node's clients: one C node and one of ours in the same cluster,
//! led by a third, are sent the same controls, in service and out of it.
//!
//! Both answer the same status, error text and, where it cannot differ, payload.

#[path = "follower/questions.rs"]
mod questions;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use questions::{Question, questions};
use ringmaster_compat::cluster::{Cluster, Config, Subject};
use ringmaster_compat::column::our_daemon;
use ringmaster_compat::prerequisite::skip;
use ringmaster_compat::require_c_cluster;
use ringmaster_compat::run::wait_until;
use ringmaster_protocol::control::{ControlOpcode, ControlRequest, payloads::*};
use ringmaster_protocol::control_packet::{ControlFlags, ReqControl};
use ringmaster_protocol::header::RequestHeader;
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::node::NodeFlags;
use ringmaster_protocol::process::{DisableMessage, RecMode};
use ringmaster_protocol::{
    Destination, Encode, Envelope, Generation, Packet, PacketStyle, Reqid, Srvid,
};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The node that leads, and whose client asks.
const LEADER: usize = 0;

/// A node of C's, and the one that is held against it.
const ASKED: [usize; 2] = [1, 2];

fn pnn(node: usize) -> Pnn {
    Pnn::new(u32::try_from(node).expect("a small number")).expect("a node number")
}

/// Status and error text.
type Answer = (i32, String);

/// A client of the leader's daemon.
struct Client {
    socket: UnixStream,
    reqid: u32,
}

impl Client {
    fn connect(cluster: &Cluster) -> Self {
        let socket = UnixStream::connect(cluster.node(LEADER).socket()).expect("a daemon listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        Self { socket, reqid: 0 }
    }

    fn send(&mut self, destination: Destination, packet: &Packet<'_>) {
        self.reqid += 1;
        let (source, reqid) = (Destination::Unknown, Reqid(self.reqid));
        let envelope = Envelope { generation: Generation(0), destination, source, reqid };
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope, PacketStyle::Exact);
        self.socket.write_all(&bytes).expect("the daemon reads");
    }

    fn ask(&mut self, node: usize, control: &ControlRequest<'_>) -> (Answer, Vec<u8>) {
        let data = control.to_bytes();
        self.ask_raw(node, control.opcode(), &data)
    }

    fn ask_raw(&mut self, node: usize, opcode: ControlOpcode, data: &[u8]) -> (Answer, Vec<u8>) {
        let (srvid, flags) = (Srvid(0xCE77), ControlFlags::NONE);
        let request = ReqControl { opcode: opcode.0, srvid, client_id: 0, flags, data };
        self.send(Destination::Node(pnn(node)), &Packet::ReqControl(request));
        loop {
            let mut bytes = vec![0; 32];
            self.socket
                .read_exact(&mut bytes)
                .unwrap_or_else(|error| panic!("no answer to {opcode} of node {node}: {error}"));
            let header = RequestHeader::decode(&bytes).expect("a header");
            bytes.resize(header.length as usize, 0);
            self.socket.read_exact(&mut bytes[32..]).expect("the rest of the packet");
            if let Packet::ReplyControl(reply) = Packet::decode(&bytes).expect("a packet").1 {
                let error = String::from_utf8_lossy(reply.error).into_owned();
                return ((reply.status, error), reply.data.to_vec());
            }
        }
    }

    /// Keeps the leader from recoveries for so long, in seconds; 0: no more.
    fn hold_recoveries(&mut self, timeout: u32) {
        let wish = DisableMessage { pnn: None, srvid: Srvid::NO_REPLY, timeout };
        let message = ReqMessage { srvid: Srvid::DISABLE_RECOVERIES, data: &wish.to_bytes() };
        self.send(Destination::BroadcastConnected, &Packet::ReqMessage(message));
    }

    fn recovery_mode(&mut self, node: usize) -> i32 {
        self.ask(node, &ControlRequest::GetRecMode).0.0
    }
}

/// Asks both nodes everything; what they answered differently.
fn compare(client: &mut Client, condition: &str, questions: &[Question]) -> String {
    let mut differences = String::new();
    for question in questions {
        let answers = ASKED.map(|node| {
            let (opcode, data) = question.to(pnn(node));
            let (answer, data) = client.ask_raw(node, opcode, &data);
            (answer, question.comparable(&data))
        });
        if std::env::var_os("RINGMASTER_COMPAT_SHOW").is_some() {
            println!("{condition}: {question:?} {:?}", answers[0].0);
        }
        if answers[0] != answers[1] {
            let [c, ours] = &answers;
            let _ =
                writeln!(differences, "{condition}: {question:?}\n  C    {c:?}\n  ours {ours:?}");
        }
    }
    differences
}

fn wait_for_service(client: &mut Client) {
    wait_until("both nodes are in service", PATIENCE, || {
        ASKED.iter().all(|node| client.recovery_mode(*node) == 0).then_some(())
    })
    .expect("the cluster recovers");
}

fn set_mode(client: &mut Client, mode: RecMode) {
    for node in ASKED {
        assert_eq!(client.ask(node, &ControlRequest::SetRecMode(mode)).0.0, 0);
    }
}

/// Two C daemons, of which the first leads, and ours, which may not.
fn cluster(ctdbd: &Path) -> anyhow::Result<Cluster> {
    let ours = Subject::Ours { ctdbd: ctdbd.to_path_buf() };
    let config = Config::new(3).node(2, ours).tunable("RerecoveryTimeout", 1);
    let cluster = Cluster::prepare(config)?;
    for (node, capability) in [(1, "leader"), (2, "leader")] {
        let conf = cluster.node(node).base().join("ctdb.conf");
        let text = fs::read_to_string(&conf)?;
        fs::write(conf, format!("{text}[cluster]\n\t{capability} capability = false\n"))?;
    }
    let native = "[transport]\nsamba version = 4.17\n";
    fs::write(cluster.node(2).base().join("ringmaster.conf"), native)?;
    for node in cluster.nodes() {
        node.start()?;
    }
    cluster.settle()?;
    Ok(cluster)
}

#[test]
fn a_follower_answers_another_node_as_c_does() {
    require_c_cluster!();
    let Some(ctdbd) = our_daemon() else {
        return skip(
            "our ctdbd is not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)",
        );
    };
    let cluster = cluster(&ctdbd).unwrap();
    let mut client = Client::connect(&cluster);
    for (kind, name) in [("", "v.tdb"), ("persistent", "p.tdb"), ("replicated", "r.tdb")] {
        let arguments = ["attach", name, kind];
        let used = if kind.is_empty() { &arguments[..2] } else { &arguments[..] };
        cluster.node(LEADER).tool_ok(used).unwrap();
        // Other nodes hear of it by a broadcast that nobody answers.
        let path = ControlRequest::GetDbPath(DbId::from_name(name));
        wait_until("both nodes have the database", PATIENCE, || {
            ASKED.iter().all(|node| client.ask(*node, &path).0.0 == 0).then_some(())
        })
        .expect("the attach reaches them");
    }
    let everything = questions();
    let mut differences = compare(&mut client, "in service", &everything);
    wait_for_service(&mut client);

    client.hold_recoveries(600);
    set_mode(&mut client, RecMode::Active);
    differences += &compare(&mut client, "in recovery", &everything);
    client.hold_recoveries(0);
    wait_for_service(&mut client);

    for node in ASKED {
        assert_eq!(client.ask(node, &ControlRequest::StopNode).0.0, 0);
    }
    wait_until("the leader is alone", PATIENCE, || {
        let (_, data) = client.ask(LEADER, &ControlRequest::GetNodeMap);
        let map = ringmaster_protocol::Decode::from_bytes(&data).ok();
        let map: ringmaster_protocol::node::NodeMap = map?;
        let stopped = |node: &usize| {
            map.find(pnn(*node)).is_some_and(|node| node.flags.contains(NodeFlags::STOPPED))
        };
        (ASKED.iter().all(stopped) && client.recovery_mode(LEADER) == 0).then_some(())
    })
    .expect("the leader notices");
    // What is asked after those that differ differs too.
    let harmless = everything.into_iter().filter(|question| !question.is_refused_when_stopped());
    let harmless: Vec<_> = harmless.collect();
    differences += &compare(&mut client, "stopped", &harmless);
    for node in ASKED {
        assert_eq!(client.ask(node, &ControlRequest::ContinueNode).0.0, 0);
    }
    wait_for_service(&mut client);
    assert!(differences.is_empty(), "{differences}");
}
