//! A client of one daemon, as small as the tests need it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringmaster_compat::cluster::Cluster;
use ringmaster_protocol::control::{Control, ControlOpcode, ReplyBody};
use ringmaster_protocol::control_packet::{ControlFlags, ReplyControl, ReqControl};
use ringmaster_protocol::header::RequestHeader;
use ringmaster_protocol::{
    Destination, Encode, Envelope, Generation, Packet, PacketStyle, Reqid, Srvid,
};

use crate::garbage::without_garbage;

/// How long a reply may take; C answers the slow ones within seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// What came back for a control.
pub(crate) struct Exchange {
    pub(crate) status: i32,
    pub(crate) data: Vec<u8>,
    pub(crate) error: Vec<u8>,
}

impl Exchange {
    /// The reply as `C`'s type. It must say everything: encoded again it gives the same bytes.
    pub(crate) fn reply<C: Control>(&self) -> C::Reply<'_> {
        let packet = ReplyControl { status: self.status, data: &self.data, error: &self.error };
        let reply = C::Reply::from_reply(&packet)
            .unwrap_or_else(|error| panic!("{}: {error}: {:02x?}", C::OPCODE, self.data));
        let mut again = Vec::new();
        reply.encode_data(&mut again);
        let data = without_garbage(C::OPCODE, &self.data);
        assert_eq!((reply.reply_status(), again), (self.status, data), "{}", C::OPCODE);
        reply
    }
}

/// A client of one daemon.
pub(crate) struct Client {
    socket: UnixStream,
    reqid: u32,
    /// Messages that came while waiting for replies.
    messages: Vec<(Srvid, Vec<u8>)>,
}

impl Client {
    pub(crate) fn connect(cluster: &Cluster, node: usize) -> Self {
        let socket = UnixStream::connect(cluster.node(node).socket()).expect("a daemon listens");
        socket.set_read_timeout(Some(REPLY_TIMEOUT)).expect("a socket takes a timeout");
        Self { socket, reqid: 0, messages: Vec::new() }
    }

    pub(crate) fn send(&mut self, to: Destination, packet: &Packet<'_>) {
        self.reqid += 1;
        let envelope = Envelope {
            generation: Generation(0),
            destination: to,
            source: Destination::Unknown,
            reqid: Reqid(self.reqid),
        };
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope, PacketStyle::Exact);
        self.socket.write_all(&bytes).expect("the daemon reads");
    }

    /// The next packet, whole.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        self.socket.read_exact(&mut bytes).expect("the daemon answers in time");
        let header = RequestHeader::decode(&bytes).expect("a header");
        bytes.resize(header.length as usize, 0);
        self.socket.read_exact(&mut bytes[32..]).expect("the rest of the packet");
        bytes
    }

    pub(crate) fn raw(&mut self, opcode: ControlOpcode, srvid: u64, data: &[u8]) -> Exchange {
        let flags = ControlFlags::NONE;
        let (opcode, srvid) = (opcode.0, Srvid(srvid));
        let request = ReqControl { opcode, srvid, client_id: 0, flags, data };
        self.send(Destination::Current, &Packet::ReqControl(request));
        loop {
            let bytes = self.receive();
            match Packet::decode(&bytes).expect("a packet").1 {
                Packet::ReplyControl(reply) => {
                    let (data, error) = (reply.data.to_vec(), reply.error.to_vec());
                    return Exchange { status: reply.status, data, error };
                }
                Packet::ReqMessage(message) => {
                    self.messages.push((message.srvid, message.data.to_vec()));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub(crate) fn call_at<C: Control>(&mut self, srvid: u64, request: &C::Request<'_>) -> Exchange {
        self.raw(C::OPCODE, srvid, &request.to_bytes())
    }

    pub(crate) fn call<C: Control>(&mut self, request: &C::Request<'_>) -> Exchange {
        self.call_at::<C>(0, request)
    }

    /// Sends a control whose reply is nothing but success.
    pub(crate) fn succeeds<C: for<'a> Control<Reply<'a> = ()>>(
        &mut self,
        request: &C::Request<'_>,
    ) {
        self.call::<C>(request).reply::<C>();
    }

    pub(crate) fn status<C: Control>(&mut self, request: &C::Request<'_>) -> i32 {
        self.call::<C>(request).status
    }

    /// The next message to `srvid`.
    pub(crate) fn message(&mut self, srvid: u64) -> Vec<u8> {
        loop {
            if let Some(at) = self.messages.iter().position(|(to, _)| *to == Srvid(srvid)) {
                return self.messages.remove(at).1;
            }
            let bytes = self.receive();
            match Packet::decode(&bytes).expect("a packet").1 {
                Packet::ReqMessage(message) => {
                    self.messages.push((message.srvid, message.data.to_vec()));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}
