//! The blocking client: one connection, used by one thread.
//!
//! Role: sends a request and waits for its reply, within the time-out; hands out what arrives
//! meanwhile. What a reply means to a database is in other modules.
//! Invariants
//! - Every wait has a deadline; a request that met it is forgotten, its late reply dropped.
//! - Messages that arrive during a wait are kept (or given to their handler), in order.
//!
//! Origin: `ctdb/client/client_control_sync.c`, `client_message.c`, `client_tunnel.c`;
//! `docs/spec/wire-protocol.md` 6.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use ringmaster_protocol::call::{CallFlags, CallId, ReqCall};
use ringmaster_protocol::control::payloads::{NotifyData, Pid, PidSrvid};
use ringmaster_protocol::control::{Control, ControlOpcode, ReplyBody, ReplyError, kinds};
use ringmaster_protocol::control_packet::{ControlFlags, ReqControl};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::tunnel::{ReqTunnel, TunnelFlags};
use ringmaster_protocol::{DbId, Destination, Encode, Packet, Pnn, Reader, Reqid, Srvid};

use crate::connection::{Connection, Inbox};
use crate::database::Database;
use crate::error::{
    CallError, ConnectError, ConnectionError, ControlError, LeaderError, MalformedReply,
    ReceiveError,
};
use crate::limits::TIMEOUT_DEFAULT;
use crate::message::{Message, TunnelPacket};
use crate::path::socket_path;
use crate::socket::{Interrupted, Socket};

type Handler = Box<dyn FnMut(&Message) + Send>;

/// A connection to the local daemon.
pub struct Client {
    socket: Socket,
    connection: Connection,
    pnn: Pnn,
    timeout: Duration,
    handlers: BTreeMap<Srvid, Handler>,
    reply_srvids: u32,
    /// `g_lock.tdb`, once a transaction needed it.
    pub(crate) g_lock: Option<Database>,
    /// The last reply: decoded values borrow from it.
    reply: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handlers: Vec<_> = self.handlers.keys().collect();
        f.debug_struct("Client")
            .field("socket", &self.socket.path())
            .field("pnn", &self.pnn)
            .field("timeout", &self.timeout)
            .field("handlers", &handlers)
            .finish_non_exhaustive()
    }
}

/// What a few controls need besides their payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct ControlOptions {
    /// The packet's `srvid` field.
    pub srvid: Option<Srvid>,
    /// Opcode-specific flags. NOREPLY is set by [`Client::control_noreply`] alone.
    pub flags: ControlFlags,
    /// Instead of the client's time-out.
    pub timeout: Option<Duration>,
}

impl ControlOptions {
    /// Only a srvid.
    #[must_use]
    pub fn srvid(srvid: Srvid) -> Self {
        Self { srvid: Some(srvid), ..Self::default() }
    }

    /// Only a time-out.
    #[must_use]
    pub fn timeout(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::default() }
    }
}

/// A control on its way; [`Client::finish`] waits for its reply.
#[derive(Debug)]
#[must_use = "the reply is kept until it is asked for"]
pub struct Ticket {
    reqid: Reqid,
    control: ControlOpcode,
    to: Destination,
    timeout: Duration,
    deadline: Instant,
}

/// Connecting, and what is known then.
impl Client {
    /// Connects to the daemon of this machine ([`socket_path`]) and asks it for its node number.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect() -> Result<Self, ConnectError> {
        Self::connect_to(&socket_path(), TIMEOUT_DEFAULT)
    }

    /// Connects to the daemon at `path`; `timeout` becomes the client's.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect_to(path: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        let socket = Socket::connect(path)?;
        let unknown = Pnn::new(0).expect("0 is a node number");
        let mut client = Self {
            socket,
            connection: Connection::new(),
            pnn: unknown,
            timeout,
            handlers: BTreeMap::new(),
            reply_srvids: 0,
            g_lock: None,
            reply: Vec::new(),
        };
        let answer = client.control::<kinds::GetPnn>(Destination::Current, &());
        let pnn = answer.map(|answer| answer.0);
        client.pnn =
            pnn.map_err(|source| ConnectError::Handshake { path: path.to_path_buf(), source })?;
        client.connection.set_source(client.own_node());
        Ok(client)
    }

    /// Number of the node this client is connected to.
    #[must_use]
    pub const fn pnn(&self) -> Pnn {
        self.pnn
    }

    /// The same as a destination.
    #[must_use]
    pub const fn own_node(&self) -> Destination {
        Destination::Node(self.pnn)
    }

    /// The daemon's socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// The time-out of each request.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets the time-out of each later request.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }
}

/// Controls.
impl Client {
    /// Sends a control to one node and waits for its reply. Values that borrow (texts, records)
    /// stay valid until the client is used again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn control<'c, K: Control>(
        &'c mut self,
        to: Destination,
        request: &K::Request<'_>,
    ) -> Result<K::Reply<'c>, ControlError> {
        self.control_with::<K>(to, request, ControlOptions::default())
    }

    /// As [`Client::control`], with a srvid, flags or a time-out of its own.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn control_with<'c, K: Control>(
        &'c mut self,
        to: Destination,
        request: &K::Request<'_>,
        options: ControlOptions,
    ) -> Result<K::Reply<'c>, ControlError> {
        let ticket = self.start::<K>(to, request, options)?;
        self.finish::<K>(ticket)
    }

    /// Sends a control that nobody answers, also to broadcast addresses. Returns when it is
    /// written to the socket.
    ///
    /// # Errors
    /// [`ControlError::Connection`], or [`ControlError::TimedOut`] when the daemon does not read.
    pub fn control_noreply<K: Control>(
        &mut self,
        to: Destination,
        request: &K::Request<'_>,
        options: ControlOptions,
    ) -> Result<(), ControlError> {
        let payload = request.to_bytes();
        let flags = ControlFlags(options.flags.0 | ControlFlags::NOREPLY.0);
        self.connection.send(to, &control_packet::<K>(&payload, options.srvid, flags));
        let timeout = options.timeout.unwrap_or(self.timeout);
        let flushed = self.wait(Instant::now() + timeout, |_| Some(()));
        flushed.map_err(|end| match end {
            Interrupted::Over(error) => error.into(),
            Interrupted::Deadline => ControlError::TimedOut { control: K::OPCODE, to, timeout },
        })
    }

    /// Sends a control and does not wait yet: several can be on their way, to several nodes.
    ///
    /// # Errors
    /// [`ControlError::Broadcast`], [`ControlError::TooManyRequests`], [`ControlError::Connection`].
    pub fn start<K: Control>(
        &mut self,
        to: Destination,
        request: &K::Request<'_>,
        options: ControlOptions,
    ) -> Result<Ticket, ControlError> {
        let control = K::OPCODE;
        if !matches!(to, Destination::Node(_) | Destination::Current) {
            return Err(ControlError::Broadcast { control, to });
        }
        let payload = request.to_bytes();
        let packet = control_packet::<K>(&payload, options.srvid, options.flags);
        let reqid = self.connection.request(to, &packet);
        let reqid = reqid.map_err(|_| ControlError::TooManyRequests { control })?;
        if let Err(error) = self.socket.write_some(&mut self.connection) {
            self.connection.forget(reqid);
            return Err(error.into());
        }
        let timeout = options.timeout.unwrap_or(self.timeout);
        Ok(Ticket { reqid, control, to, timeout, deadline: Instant::now() + timeout })
    }

    /// Waits for the reply to a control that [`Client::start`] sent. `K` is the same control.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Panics
    /// `K` is another control than the ticket's: a mistake in the program.
    pub fn finish<'c, K: Control>(
        &'c mut self,
        ticket: Ticket,
    ) -> Result<K::Reply<'c>, ControlError> {
        assert_eq!(K::OPCODE, ticket.control, "the ticket belongs to another control");
        let Ticket { reqid, control, to, timeout, deadline } = ticket;
        let reply = self.wait_for_reply(reqid, deadline);
        self.reply = reply.map_err(|end| match end {
            Interrupted::Over(error) => error.into(),
            Interrupted::Deadline => ControlError::TimedOut { control, to, timeout },
        })?;
        let malformed = |source| ControlError::Malformed { control, to, source };
        let reply = match Packet::decode(&self.reply) {
            Ok((_, Packet::ReplyControl(reply))) => reply,
            Ok((_, other)) => {
                let operation = other.operation().name();
                return Err(malformed(MalformedReply::Operation { operation }));
            }
            Err(error) => return Err(malformed(error.into())),
        };
        K::Reply::from_reply(&reply).map_err(|error| match error {
            ReplyError::Failed { status, text } => {
                ControlError::Failed { control, to, status, text: text.to_string() }
            }
            ReplyError::Payload(error) => malformed(error.into()),
        })
    }

    /// The same control to several nodes at once; `each` gets every node's answer, in the order of
    /// `nodes`. All of them have the same time to answer.
    pub fn control_each<K: Control>(
        &mut self,
        nodes: &[Pnn],
        request: &K::Request<'_>,
        options: ControlOptions,
        mut each: impl FnMut(Pnn, Result<K::Reply<'_>, ControlError>),
    ) {
        let start = |pnn: &Pnn| (*pnn, self.start::<K>(Destination::Node(*pnn), request, options));
        let tickets: Vec<_> = nodes.iter().map(start).collect();
        for (pnn, ticket) in tickets {
            match ticket {
                Ok(ticket) => each(pnn, self.finish::<K>(ticket)),
                Err(error) => each(pnn, Err(error)),
            }
        }
    }
}

fn control_packet<K: Control>(
    data: &[u8],
    srvid: Option<Srvid>,
    flags: ControlFlags,
) -> Packet<'_> {
    let srvid = srvid.unwrap_or(Srvid(0));
    Packet::ReqControl(ReqControl { opcode: K::OPCODE.0, srvid, client_id: 0, flags, data })
}

/// Calls.
impl Client {
    /// Runs a function on a record and waits for its result. Migrates the record to this node,
    /// unless `flags` ask for a read-only copy and the database allows that.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(
        &mut self,
        db: DbId,
        key: &[u8],
        callid: CallId,
        flags: CallFlags,
    ) -> Result<&[u8], CallError> {
        self.call_until(db, key, callid, flags, Instant::now() + self.timeout)
    }

    pub(crate) fn call_until(
        &mut self,
        db: DbId,
        key: &[u8],
        callid: CallId,
        flags: CallFlags,
        deadline: Instant,
    ) -> Result<&[u8], CallError> {
        let call = ReqCall { flags, db, callid, hopcount: 0, key, calldata: &[] };
        let reqid = self.connection.request(Destination::Current, &Packet::ReqCall(call));
        let reqid = reqid.map_err(|_| CallError::TooManyRequests { db })?;
        let timeout = self.timeout;
        let reply = self.wait_for_reply(reqid, deadline);
        self.reply = reply.map_err(|end| match end {
            Interrupted::Over(error) => error.into(),
            Interrupted::Deadline => CallError::TimedOut { db, timeout },
        })?;
        match Packet::decode(&self.reply) {
            Ok((_, Packet::ReplyCall(reply))) if reply.status == 0 => Ok(reply.data),
            Ok((_, Packet::ReplyCall(reply))) => {
                Err(CallError::Failed { db, status: reply.status })
            }
            Ok((_, Packet::ReplyError(reply))) => {
                Err(CallError::Failed { db, status: reply.status })
            }
            Ok((_, other)) => {
                let operation = other.operation().name();
                Err(CallError::Malformed { db, source: MalformedReply::Operation { operation } })
            }
            Err(error) => Err(CallError::Malformed { db, source: error.into() }),
        }
    }
}

/// Messages and tunnels.
impl Client {
    /// Registers for messages to `srvid`; they wait for [`Client::receive`]. Registrations are
    /// counted: registered twice means delivered twice.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn register(&mut self, srvid: Srvid) -> Result<(), ControlError> {
        let to = self.own_node();
        self.control_with::<kinds::RegisterSrvid>(to, &(), ControlOptions::srvid(srvid))
    }

    /// Ends one registration, and the handler if there is one.
    ///
    /// # Errors
    /// [`ControlError`]; status 2 when nothing was registered.
    pub fn deregister(&mut self, srvid: Srvid) -> Result<(), ControlError> {
        self.handlers.remove(&srvid);
        let to = self.own_node();
        self.control_with::<kinds::DeregisterSrvid>(to, &(), ControlOptions::srvid(srvid))
    }

    /// As [`Client::register`], with a function that gets each message as soon as it arrives,
    /// which is during whatever wait of this client comes next. It replaces a former one.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn register_handler(
        &mut self,
        srvid: Srvid,
        handler: impl FnMut(&Message) + Send + 'static,
    ) -> Result<(), ControlError> {
        self.handlers.insert(srvid, Box::new(handler));
        self.register(srvid)
    }

    /// Sends a message. Nobody reports whether anybody received it.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn send_message(
        &mut self,
        to: Destination,
        srvid: Srvid,
        data: &[u8],
    ) -> Result<(), ConnectionError> {
        self.connection.send(to, &Packet::ReqMessage(ReqMessage { srvid, data }));
        self.flush()
    }

    /// Waits for the next message that has no handler.
    ///
    /// # Errors
    /// [`ReceiveError`]; [`ReceiveError::Lost`] after the messages that were kept.
    pub fn receive(&mut self, timeout: Duration) -> Result<Message, ReceiveError> {
        self.receive_where(timeout, Connection::messages, |_| true)
    }

    /// Waits for the next message to `srvid`; others stay for later.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn receive_to(&mut self, srvid: Srvid, timeout: Duration) -> Result<Message, ReceiveError> {
        self.receive_where(timeout, Connection::messages, |message| message.srvid == srvid)
    }

    /// Registers a tunnel: at most one client on each node may hold an id.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn register_tunnel(&mut self, tunnel_id: u64) -> Result<(), ControlError> {
        let (to, options) = (self.own_node(), ControlOptions::srvid(Srvid(tunnel_id)));
        self.control_with::<kinds::TunnelRegister>(to, &(), options)
    }

    /// Gives a tunnel up.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn deregister_tunnel(&mut self, tunnel_id: u64) -> Result<(), ControlError> {
        let (to, options) = (self.own_node(), ControlOptions::srvid(Srvid(tunnel_id)));
        self.control_with::<kinds::TunnelDeregister>(to, &(), options)
    }

    /// Sends a packet to the client that holds the tunnel on node `to`. This client must hold it
    /// here.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn send_tunnel(
        &mut self,
        to: Pnn,
        tunnel_id: u64,
        flags: TunnelFlags,
        data: &[u8],
    ) -> Result<(), ConnectionError> {
        let packet = Packet::ReqTunnel(ReqTunnel { tunnel_id, flags, data });
        self.connection.send(Destination::Node(to), &packet);
        self.flush()
    }

    /// Waits for the next packet of a tunnel.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn receive_tunnel(
        &mut self,
        tunnel_id: u64,
        timeout: Duration,
    ) -> Result<TunnelPacket, ReceiveError> {
        self.receive_where(timeout, Connection::tunnel_packets, |packet| {
            packet.tunnel_id == tunnel_id
        })
    }

    /// Waits for a broadcast of the leader and returns its node; they come every second. `None`
    /// when an election begins just then.
    ///
    /// # Errors
    /// [`LeaderError`] when none comes: there is no leader.
    pub fn wait_for_leader(&mut self, timeout: Duration) -> Result<Option<Pnn>, LeaderError> {
        self.register(Srvid::LEADER)?;
        let message = self.receive_to(Srvid::LEADER, timeout);
        self.deregister(Srvid::LEADER)?;
        self.discard_messages(Srvid::LEADER);
        let raw = Reader::new(&message?.data).u32("leader");
        Ok(raw.ok().and_then(Pnn::new))
    }

    /// Asks the daemon to send `data` to `srvid` on all nodes when this client's connection ends.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn register_notify(&mut self, srvid: Srvid, data: &[u8]) -> Result<(), ControlError> {
        let to = self.own_node();
        self.control::<kinds::RegisterNotify>(to, &NotifyData { srvid, data })
    }

    /// Takes that back.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn deregister_notify(&mut self, srvid: Srvid) -> Result<(), ControlError> {
        let to = self.own_node();
        self.control::<kinds::DeregisterNotify>(to, &srvid)
    }

    /// Whether process `pid` of node `to` lives and is a client there.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn process_exists(&mut self, to: Pnn, pid: Pid) -> Result<bool, ControlError> {
        let to = Destination::Node(to);
        self.control::<kinds::ProcessExists>(to, &pid).map(|answer| answer.0)
    }

    /// Whether process `pid` of node `to` lives and has registered `srvid` there.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn process_registered(
        &mut self,
        to: Pnn,
        pid: Pid,
        srvid: Srvid,
    ) -> Result<bool, ControlError> {
        let to = Destination::Node(to);
        let request = PidSrvid { pid, srvid };
        self.control::<kinds::CheckPidSrvid>(to, &request).map(|answer| answer.0)
    }

    /// A srvid for replies to this client that no former one of it had: the client library's range,
    /// with the process id where C has it.
    pub(crate) fn unused_reply_srvid(&mut self) -> Srvid {
        // 24 bits between the range's byte and the process id.
        self.reply_srvids = (self.reply_srvids + 1) & 0xFF_FFFF;
        Srvid(Srvid::client_reply(std::process::id()).0 | u64::from(self.reply_srvids) << 32)
    }

    /// Drops the messages to `srvid` that wait.
    pub(crate) fn discard_messages(&mut self, srvid: Srvid) {
        while self.connection.messages().pop(|message| message.srvid == srvid).is_some() {}
    }

    fn receive_where<T>(
        &mut self,
        timeout: Duration,
        inbox: impl Fn(&mut Connection) -> &mut Inbox<T>,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Result<T, ReceiveError> {
        let received = self.wait(Instant::now() + timeout, |connection| {
            let inbox = inbox(connection);
            if let Some(item) = inbox.pop(&mut wanted) {
                return Some(Ok(item));
            }
            match inbox.take_lost() {
                0 => None,
                lost => Some(Err(lost)),
            }
        });
        match received {
            Ok(Ok(item)) => Ok(item),
            Ok(Err(lost)) => Err(ReceiveError::Lost { lost }),
            Err(Interrupted::Over(error)) => Err(error.into()),
            Err(Interrupted::Deadline) => Err(ReceiveError::TimedOut { timeout }),
        }
    }
}

/// Waiting.
impl Client {
    /// Serves handlers and collects messages until the time is over. The only way to get messages
    /// to handlers while nothing else is asked for.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn serve(&mut self, duration: Duration) -> Result<(), ConnectionError> {
        match self.wait(Instant::now() + duration, |_| None::<()>) {
            Ok(()) | Err(Interrupted::Deadline) => Ok(()),
            Err(Interrupted::Over(error)) => Err(error),
        }
    }

    fn flush(&mut self) -> Result<(), ConnectionError> {
        // What the daemon does not take within the time stays queued and goes out later.
        match self.wait(Instant::now() + self.timeout, |_| Some(())) {
            Ok(()) | Err(Interrupted::Deadline) => Ok(()),
            Err(Interrupted::Over(error)) => Err(error),
        }
    }

    fn wait_for_reply(&mut self, reqid: Reqid, deadline: Instant) -> Result<Vec<u8>, Interrupted> {
        let reply = self.wait(deadline, |connection| connection.take_reply(reqid));
        if reply.is_err() {
            self.connection.forget(reqid);
        }
        reply
    }

    /// Exchanges data until `done`, with handlers served in between.
    fn wait<T>(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&mut Connection) -> Option<T>,
    ) -> Result<T, Interrupted> {
        let Self { socket, connection, handlers, .. } = self;
        socket.exchange(connection, deadline, |connection| {
            serve_handlers(connection, handlers);
            done(connection)
        })
    }
}

fn serve_handlers(connection: &mut Connection, handlers: &mut BTreeMap<Srvid, Handler>) {
    if handlers.is_empty() {
        return;
    }
    while let Some(message) =
        connection.messages().pop(|message| handlers.contains_key(&message.srvid))
    {
        if let Some(handler) = handlers.get_mut(&message.srvid) {
            handler(&message);
        }
    }
}

#[cfg(test)]
mod tests;
