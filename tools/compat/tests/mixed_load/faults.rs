//! Clients that misbehave, and clients that are killed.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringmaster_client::{Client, DbKind};
use ringmaster_protocol::control::ControlOpcode;
use ringmaster_protocol::control_packet::{ControlFlags, ReqControl};
use ringmaster_protocol::message::ReqMessage;
use ringmaster_protocol::{
    Destination, Envelope, Generation, Packet, PacketStyle, Pnn, Reqid, Srvid,
};

use super::{DATABASE, Dice, PATIENCE, Play, value};

/// Socket and key of a child that counts.
pub(crate) const ORDERS: &str = "RINGMASTER_MIXED_CHILD";

/// Messages of a slow reader, and bytes of each: what the daemon has to keep for it.
const FLOOD: usize = 200;
const FLOOD_BYTES: usize = 60_000;

/// Connections of one burst.
const BURST: usize = 100;

fn encoded(packet: Packet<'_>) -> Vec<u8> {
    let envelope = Envelope {
        generation: Generation(0),
        destination: Pnn::new(0).map_or(Destination::Current, Destination::Node),
        source: Destination::Unknown,
        reqid: Reqid(1),
    };
    let mut bytes = Vec::new();
    packet.encode_into(&mut bytes, envelope, PacketStyle::Exact);
    bytes
}

fn control(opcode: ControlOpcode, srvid: Srvid, data: &[u8]) -> Vec<u8> {
    let flags = ControlFlags::NONE;
    encoded(Packet::ReqControl(ReqControl { opcode: opcode.0, srvid, client_id: 0, flags, data }))
}

fn connect(play: &Play<'_>) -> UnixStream {
    let stream = UnixStream::connect(play.node.socket()).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    stream
}

/// Reads one whole packet.
fn answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).expect("an answer in time");
    let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.resize(len as usize, 0);
    stream.read_exact(&mut bytes[4..]).expect("a whole answer");
    bytes
}

/// Writes to a daemon that may throw this client out at any moment.
fn write_in_vain(stream: &mut UnixStream, bytes: &[u8]) {
    match stream.write_all(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the daemon does not read: {error}")
        }
        _ => {}
    }
}

/// One fault after the other.
pub(crate) fn misbehave(play: &Play<'_>, mut dice: Dice) {
    while !play.is_over() {
        match dice.below(7) {
            0 => burst(play, &mut dice),
            1 => garbage(play, &mut dice),
            2 => claimed_length(play, &mut dice),
            3 => half_packets(play, &mut dice),
            4 => slow_reader(play, &mut dice),
            5 => questions_without_ears(play),
            _ => nonsense_in_good_form(play, &mut dice),
        }
        play.did();
    }
}

/// Connections that come and go, some with a question on their lips.
fn burst(play: &Play<'_>, dice: &mut Dice) {
    let mut clients: Vec<UnixStream> = (0..BURST).map(|_| connect(play)).collect();
    for client in &mut clients {
        if dice.below(2) == 0 {
            write_in_vain(client, &control(ControlOpcode::GET_PNN, Srvid(0), b""));
        }
    }
}

fn garbage(play: &Play<'_>, dice: &mut Dice) {
    let mut client = connect(play);
    let bytes: Vec<u8> = (0..1 + dice.below(5_000)).map(|_| dice.next().to_le_bytes()[0]).collect();
    write_in_vain(&mut client, &bytes);
}

/// A packet that says it is far longer than what comes.
fn claimed_length(play: &Play<'_>, dice: &mut Dice) {
    let mut client = connect(play);
    let mut bytes = control(ControlOpcode::PING, Srvid(0), &[0; 400]);
    bytes[..4].copy_from_slice(&(200_u32 << 20).to_le_bytes());
    write_in_vain(&mut client, &bytes[..4 + dice.below(bytes.len() - 4)]);
}

/// A packet in pieces: the rest comes late, or never.
fn half_packets(play: &Play<'_>, dice: &mut Dice) {
    let mut client = connect(play);
    let whole = control(ControlOpcode::GET_PNN, Srvid(0), b"");
    for _ in 0..5 {
        let (head, tail) = whole.split_at(1 + dice.below(whole.len() - 1));
        write_in_vain(&mut client, head);
        if dice.below(4) == 0 {
            return;
        }
        thread::yield_now();
        write_in_vain(&mut client, tail);
        answer(&mut client);
    }
}

/// Floods begun so far, over all daemons.
static FLOODS: AtomicU64 = AtomicU64::new(0);

/// A client that wants messages and does not read them; then it goes, or reads them all.
fn slow_reader(play: &Play<'_>, dice: &mut Dice) {
    let (mut reader, mut writer) = (connect(play), connect(play));
    // Its own: the flood of another one would come between request and answer.
    let srvid = Srvid(0x000F_100D_0000 + FLOODS.fetch_add(1, Ordering::Relaxed));
    write_in_vain(&mut reader, &control(ControlOpcode::REGISTER_SRVID, srvid, b""));
    answer(&mut reader);
    let data = vec![7; FLOOD_BYTES];
    let message = encoded(Packet::ReqMessage(ReqMessage { srvid, data: &data }));
    for _ in 0..FLOOD {
        write_in_vain(&mut writer, &message);
    }
    if dice.below(2) == 0 {
        for _ in 0..FLOOD {
            let received = answer(&mut reader);
            match Packet::decode(&received).expect("a packet").1 {
                Packet::ReqMessage(message) => assert!(message.data == data, "another message"),
                other => panic!("instead of a message {other:?}"),
            }
        }
    }
}

/// Asks a lot and leaves without an answer.
fn questions_without_ears(play: &Play<'_>) {
    let mut client = connect(play);
    let question = control(ControlOpcode::GET_DBMAP, Srvid(0), b"");
    write_in_vain(&mut client, &question.repeat(500));
}

/// Packets of the right form and without sense; the connection stays usable.
fn nonsense_in_good_form(play: &Play<'_>, dice: &mut Dice) {
    let mut client = connect(play);
    let bytes: Vec<u8> = (0..dice.below(300)).map(|_| dice.next().to_le_bytes()[0]).collect();
    // Opcodes that nobody has: no harm can come of the random bytes behind them.
    let opcode = ControlOpcode(60_000 + u32::try_from(dice.below(1_000)).expect("small"));
    write_in_vain(&mut client, &control(opcode, Srvid(dice.next()), &bytes));
    answer(&mut client);
    write_in_vain(&mut client, &control(ControlOpcode::GET_PNN, Srvid(0), b""));
    answer(&mut client);
}

/// Starts children that count for themselves and kills them at any moment.
pub(crate) fn kill(play: &Play<'_>, mut dice: Dice, round: u64) {
    let mut observer = play.client();
    let mut database = play.database(&mut observer);
    let mut number = 0;
    while !play.is_over() {
        number += 1;
        let key = format!("child {round} {number}");
        let own = std::env::current_exe().expect("a test binary knows its path");
        let mut child = Command::new(own)
            .args(["--exact", "a_counting_child", "--nocapture"])
            .env(ORDERS, format!("{}\n{key}", play.node.socket().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let reported = |line: std::io::Result<String>| -> Option<u64> {
            line.ok()?.strip_prefix("counted ")?.parse().ok()
        };
        let wanted = 1 + dice.next() % 200;
        let mut last = 0;
        for counted in lines.by_ref().filter_map(reported) {
            last = counted;
            if last >= wanted {
                break;
            }
        }
        child.kill().expect("it counts without end");
        child.wait().expect("a child is waited for");
        last = lines.filter_map(reported).last().unwrap_or(last);
        assert!(last > 0, "the child has not counted at all");
        // Its lock is free, and what it has said is stored; of the last deed it could not speak.
        let record = observer.lock_record(&mut database, key.as_bytes()).expect("a record");
        let stored = value(record.value());
        assert!(stored == last || stored == last + 1, "{key}: {stored} stored, {last} reported");
        drop(record);
        play.did();
    }
}

/// Counts until it is killed.
pub(crate) fn child(orders: &str) {
    let (socket, key) = orders.split_once('\n').expect("socket and key");
    let mut client = Client::connect_to(Path::new(socket), PATIENCE).expect("the daemon answers");
    let mut database = client.open(DATABASE, DbKind::Volatile).expect("attached");
    loop {
        let mut record = client.lock_record(&mut database, key.as_bytes()).expect("a record");
        let next = value(record.value()) + 1;
        record.store(&next.to_le_bytes()).expect("stored");
        drop(record);
        println!("counted {next}");
        if next.is_multiple_of(50) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
