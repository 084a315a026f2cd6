//! Clients that behave: every answer is checked.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ringmaster_client::DbKind;
use ringmaster_protocol::call::{CallFlags, CallId};
use ringmaster_protocol::control::{kinds, payloads::*};
use ringmaster_protocol::{Destination, Srvid};

use super::{COUNTERS, DATABASE, Dice, OTHERS, PATIENCE, Play, key, other_database, value};

/// Pause between two recoveries.
const RECOVERY_PAUSE: Duration = Duration::from_millis(700);

/// Messages of honest clients go to srvids from here on.
const SRVIDS: u64 = 0xD0_0000_0000;

/// Counts, and asks for this and that in between; sometimes on a new connection.
pub(crate) fn count(play: &Play<'_>, mut dice: Dice) {
    while !play.is_over() {
        let mut client = play.client();
        let mut database = play.database(&mut client);
        let db = database.id();
        for _ in 0..200 {
            if play.is_over() {
                return;
            }
            let counter = dice.below(COUNTERS);
            match dice.below(12) {
                0..6 => {
                    let mut record =
                        client.lock_record(&mut database, &key(counter)).expect("a record");
                    let next = value(record.value()) + 1;
                    record.store(&next.to_le_bytes()).expect("stored");
                    play.counted[counter].fetch_add(1, Ordering::SeqCst);
                }
                6 => {
                    let before = play.counted[counter].load(Ordering::SeqCst);
                    let found = client.fetch(&mut database, &key(counter)).expect("an answer");
                    let found = found.map_or(0, |bytes| value(&bytes));
                    assert!(found >= before, "counter {counter}: {found} after {before}");
                }
                7 => {
                    let flags = CallFlags::NONE;
                    let key = key(counter);
                    client.call(db, &key, CallId::NULL, flags).expect("an answer");
                }
                8 => {
                    let here = Destination::Current;
                    client.control::<kinds::Ping>(here, &()).expect("an answer");
                    let map = client.control::<kinds::GetDbMap>(here, &()).expect("an answer");
                    assert!(map.0.iter().any(|entry| entry.db == db), "{map:?}");
                }
                9 => {
                    let srvid = Srvid(SRVIDS - 1 - dice.next() % 1_000);
                    client.register(srvid).expect("registered");
                    client.deregister(srvid).expect("deregistered");
                }
                10 => {
                    let own = Pid(std::process::id().cast_signed());
                    let node = client.pnn();
                    assert!(client.process_exists(node, own).expect("an answer"));
                }
                _ => {
                    let name = other_database(dice.below(OTHERS));
                    client.attach(&name, DbKind::Volatile).expect("attached");
                    let again = client.attach(DATABASE, DbKind::Volatile).expect("attached");
                    assert_eq!(again.id, db);
                }
            }
            play.did();
        }
    }
}

/// Sends messages from one client to another, which get there complete and in order.
pub(crate) fn talk(play: &Play<'_>, mut dice: Dice, name: u64) {
    let (mut from, mut to) = (play.client(), play.client());
    let srvid = Srvid(SRVIDS + name);
    to.register(srvid).expect("registered");
    let node = Destination::Node(from.pnn());
    let mut number = 0_u64;
    while !play.is_over() {
        let first = number;
        for _ in 0..=dice.below(40) {
            let mut data = vec![0; 8 + dice.below(20_000)];
            data[..8].copy_from_slice(&number.to_le_bytes());
            from.send_message(node, srvid, &data).expect("sent");
            number += 1;
        }
        for expected in first..number {
            let message = to.receive_to(srvid, PATIENCE).expect("a message");
            assert_eq!(value(&message.data[..8]), expected);
            play.did();
        }
    }
}

/// An operator who orders one recovery after the other.
pub(crate) fn recover(play: &Play<'_>) {
    while !play.is_over() {
        play.node.tool_ok(&["recover"]).expect("a recovery");
        play.did();
        thread::sleep(RECOVERY_PAUSE);
    }
}
