//! Dead records that are used again while somebody walks the file: the walk stays in its chain and
//! sees every record that was there all the time, once. (libtdb's own stores lead it astray.)
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::{Database, Handle};
use ringmaster_storage::lock::{LockKind, Locks, TryLock, Wait};
use ringmaster_storage::open::{OpenOptions, open};
use ringmaster_storage::store::Store;
use ringmaster_storage::traverse::Cursor;

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::{Locker, flag};

const HASH_SIZE: u32 = 3;

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// A file that a VOLATILE handle of ours and a walker use.
struct Scene {
    _dir: tempfile::TempDir,
    mutexes: bool,
    handle: Handle,
    walker: Walker,
}

/// Who stands on a record while the handle works.
enum Walker {
    /// libtdb's traverse.
    Traverse(Box<Locker>),
    /// libtdb's `tdb_firstkey` and `tdb_nextkey`, with the key told last.
    Keys(Box<Locker>, String),
    Ours(Box<(Handle, Cursor)>),
}

impl Walker {
    /// Goes to the next record; its key, `None` at the end.
    fn step(&mut self, first: bool) -> Option<String> {
        let at = |reply: String| reply.strip_prefix("at ").map(str::to_owned);
        match self {
            Self::Traverse(locker) => at(locker.run(if first { "traverse_show" } else { "go on" })),
            Self::Keys(locker, last) => {
                let next = if first { "firstkey".to_owned() } else { format!("nextkey {last}") };
                let next = at(locker.run(&next));
                *last = next.clone().unwrap_or_default();
                next
            }
            Self::Ours(walk) => {
                let (handle, cursor) = &mut **walk;
                let (mut key, mut value) = (Vec::new(), Vec::new());
                let more = handle.traverse_next(cursor, LockKind::Read, &mut key, &mut value);
                more.unwrap().then(|| String::from_utf8(key).unwrap())
            }
        }
    }
}

impl Scene {
    /// Runs `test` with each kind of walker on files without and with mutexes.
    fn each(test: impl Fn(&mut Scene)) {
        if !libtdb::available() {
            return;
        }
        for mutexes in [0, flag::MUTEX_LOCKING] {
            for kind in ["traverse", "keys", "ours"] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("t.tdb");
                let flags = flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | flag::NOSYNC | mutexes;
                let ours = Flags::from_bits((flags | flag::VOLATILE).cast_unsigned());
                let handle = open(&path, &OpenOptions::create(HASH_SIZE, ours)).unwrap();
                let locker = || Box::new(Locker::start(&path, 3, flags));
                let walker = match kind {
                    "traverse" => Walker::Traverse(locker()),
                    "keys" => Walker::Keys(locker(), String::new()),
                    _ => {
                        let walker = handle.database().handle().unwrap();
                        Walker::Ours(Box::new((walker, Cursor::new())))
                    }
                };
                let mut scene = Scene { _dir: dir, mutexes: mutexes != 0, handle, walker };
                test(&mut scene);
                drop(scene.walker);
                // Whatever happened: the file is whole.
                let mut last = Locker::start(&path, 3, flags);
                assert_eq!(last.run("check"), "ok", "mutexes: {mutexes}");
            }
        }
    }

    /// System call in which a handle sleeps for the freelist.
    fn sleep(&self) -> libc::c_long {
        if self.mutexes { libc::SYS_futex } else { libc::SYS_fcntl }
    }

    fn store(&mut self, key: &str) {
        let stored = self.handle.store(key.as_bytes(), &[b"value"], StoreMode::Insert);
        assert_eq!(stored.unwrap(), Stored::Done);
    }

    fn delete(&mut self, key: &str) {
        assert!(self.handle.delete(key.as_bytes()).unwrap());
    }

    /// Offsets of the records of a chain, dead ones included, newest first.
    fn chain(&self, chain: u32) -> Vec<u32> {
        let database = self.handle.database();
        let next = |at| database.store().read_u32(at).unwrap();
        let first = next(database.layout().head_of(chain));
        std::iter::successors(Some(first), |at| Some(next(*at))).take_while(|at| *at != 0).collect()
    }
}

/// The `number`th key of a chain; all have the same length.
fn key(chain: u32, number: usize) -> String {
    let mut keys = (0..1000).map(|number| format!("key{number:03}"));
    let of_chain = |key: &String| libtdb::jenkins_hash(key.as_bytes()) % HASH_SIZE == chain;
    keys.by_ref().filter(of_chain).nth(number).unwrap()
}

/// Holds the freelist until told.
fn hold_freelist(database: &Arc<Database>) -> (Sender<()>, std::thread::JoinHandle<()>) {
    let (release, released) = channel();
    let (holding, holds) = channel();
    let database = Arc::clone(database);
    let holder = std::thread::spawn(move || {
        let mut handle = database.handle().unwrap();
        assert_eq!(handle.locks().lock_freelist(Wait::No).unwrap(), TryLock::Granted);
        holding.send(()).unwrap();
        released.recv().unwrap();
        handle.locks().unlock_freelist().unwrap();
    });
    holds.recv().unwrap();
    (release, holder)
}

#[test]
fn key_that_comes_back_takes_its_old_place_under_a_walker() {
    Scene::each(|scene| {
        let [last, first] = [key(0, 0), key(0, 1)];
        let other = key(1, 0);
        for key in [&last, &first, &other] {
            scene.store(key);
        }
        let before = scene.chain(0);
        assert_eq!(scene.walker.step(true).as_deref(), Some(first.as_str()));
        scene.delete(&first);
        scene.store(&first);
        assert_eq!(scene.chain(0), before, "no link has changed");
        assert_eq!(scene.walker.step(false).as_deref(), Some(last.as_str()));
        assert_eq!(scene.walker.step(false).as_deref(), Some(other.as_str()));
        assert_eq!(scene.walker.step(false), None);
    });
}

#[test]
fn another_key_does_not_take_the_place_a_walker_stands_on() {
    Scene::each(|scene| {
        let [last, first, new] = [key(0, 0), key(0, 1), key(0, 2)];
        for key in [&last, &first] {
            scene.store(key);
        }
        let before = scene.chain(0);
        assert_eq!(scene.walker.step(true).as_deref(), Some(first.as_str()));
        scene.delete(&first);
        scene.store(&new);
        assert_eq!(scene.chain(0)[1..], before);
        assert_eq!(scene.walker.step(false).as_deref(), Some(last.as_str()));
        assert_eq!(scene.walker.step(false), None);
        // Nobody stands there any more.
        scene.delete(&new);
        scene.store(&first);
        scene.store(&new);
        assert_eq!(scene.chain(0).len(), 3, "no further block was needed");
    });
}

#[test]
fn one_behind_others_stays_dead_as_long_as_a_walker_stands_on_it() {
    Scene::each(|scene| {
        let [last, middle, first, new] = [key(0, 0), key(0, 1), key(0, 2), key(0, 3)];
        for key in [&last, &middle, &first] {
            scene.store(key);
        }
        let before = scene.chain(0);
        assert_eq!(scene.walker.step(true).as_deref(), Some(first.as_str()));
        assert_eq!(scene.walker.step(false).as_deref(), Some(middle.as_str()));
        scene.delete(&middle);
        scene.store(&new);
        assert_eq!(scene.chain(0)[1..], before, "the new record has a place of its own");
        assert_eq!(scene.walker.step(false).as_deref(), Some(last.as_str()));
        assert_eq!(scene.walker.step(false), None);
        // Nobody stands there any more.
        scene.delete(&new);
        scene.delete(&first);
        scene.store(&middle);
        scene.store(&first);
        scene.store(&new);
        assert_eq!(scene.chain(0).len(), 4, "no further block was needed");
    });
}

#[test]
fn walker_is_never_led_into_another_chain() {
    Scene::each(|scene| {
        let [last, first] = [key(0, 0), key(0, 1)];
        let mut of_chain_2 = (0..2).map(|number| key(2, number));
        for key in [&last, &first] {
            scene.store(key);
        }
        let before = scene.chain(0);
        // Nobody walks: with the freelist busy the dead record of the next chain is taken.
        scene.delete(&first);
        let (release, holder) = hold_freelist(scene.handle.database());
        scene.store(&of_chain_2.next().unwrap());
        assert_eq!(scene.chain(2), before[..1]);
        release.send(()).unwrap();
        holder.join().unwrap();
        // Somebody stands on it: the store waits for the freelist instead.
        scene.store(&first);
        let before = scene.chain(0);
        assert_eq!(scene.walker.step(true).as_deref(), Some(first.as_str()));
        scene.delete(&first);
        let (release, holder) = hold_freelist(scene.handle.database());
        let new = of_chain_2.next().unwrap();
        std::thread::scope(|scope| {
            let database = Arc::clone(scene.handle.database());
            let (thread, threads) = channel();
            let storing = scope.spawn(move || {
                let mut handle = database.handle().unwrap();
                handle.set_max_dead(5);
                // SAFETY: no preconditions.
                thread.send(unsafe { libc::gettid() }.cast_unsigned()).unwrap();
                handle.store(new.as_bytes(), &[b"value"], StoreMode::Insert).unwrap()
            });
            let (thread, sleep) = (threads.recv().unwrap(), scene.sleep());
            while !libtdb::sleeps_in(std::process::id(), thread, sleep) {
                assert!(!storing.is_finished(), "took a record that is stood on");
                std::thread::yield_now();
            }
            release.send(()).unwrap();
            assert_eq!(storing.join().unwrap(), Stored::Done);
        });
        holder.join().unwrap();
        assert_eq!(scene.chain(0), before, "still there");
        assert_eq!(scene.walker.step(false).as_deref(), Some(last.as_str()));
        let rest: Vec<_> = std::iter::from_fn(|| scene.walker.step(false)).collect();
        assert_eq!(rest.len(), 2, "both records of chain 2: {rest:?}");
    });
}
