//! A process of its own that runs libtdb on command: locks of one process do not show what two do.
//!
//! Role: [`Locker`] starts it and talks to it, [`serve`] and [`obey`] are what runs in it. The
//! binding of the library: `libtdb.rs`, through which these names are used.
//! Invariants
//! - The process ends with its [`Locker`], at the latest when its input ends.
//! - A reply has a deadline: a test never hangs on a process that does.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Tdb, TdbError, mode};

/// Environment variable that turns a test binary into a [`Locker`]'s process: path of the file.
const LOCKER_FILE: &str = "RINGMASTER_LIBTDB_FILE";
/// Hash size and flags of the open, `HS:FLAGS`.
const LOCKER_OPEN: &str = "RINGMASTER_LIBTDB_OPEN";
/// What the locker's lines start with, to tell them from the test harness's own.
const MARK: &str = "@@";
/// How long a reply of a locker may take before the test is called hung.
const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// A process that has a file open with libtdb and obeys line commands.
///
/// The test binary that uses it must hold this test, by this name:
/// `#[test] fn libtdb_locker_process() { libtdb::serve_if_locker(); }`
pub struct Locker {
    child: Child,
    stdin: ChildStdin,
    replies: Receiver<String>,
    thread: u32,
}

impl Locker {
    /// Starts the process and waits until the file is open. Hash size 0 is libtdb's default.
    ///
    /// # Panics
    /// If the process cannot be started or libtdb refuses the file.
    pub fn start(path: &Path, hash_size: i32, flags: i32) -> Self {
        Self::start_as("libtdb_locker_process", path, hash_size, flags)
    }

    /// Starts a process that runs another server: the test of that name, which calls
    /// [`locker_order`] and [`serve`].
    ///
    /// # Panics
    /// If the process cannot be started or does not open the file.
    pub fn start_as(test: &str, path: &Path, hash_size: i32, flags: i32) -> Self {
        let program = std::env::current_exe().expect("a test binary knows its path");
        let mut child = Command::new(program)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(LOCKER_FILE, path)
            .env(LOCKER_OPEN, format!("{hash_size}:{flags}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary can be run again");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(at) = line.find(MARK) {
                    // The test may have ended: nobody reads, nothing to do.
                    let _ = sender.send(line[at + MARK.len()..].to_owned());
                }
            }
        });
        let mut locker = Self { child, stdin, replies, thread: 0 };
        let opened = locker.reply();
        let thread = opened.strip_prefix("open ok ").and_then(|thread| thread.parse().ok());
        let refused = || panic!("{test} could not open {}: {opened}", path.display());
        locker.thread = thread.unwrap_or_else(refused);
        locker
    }

    /// Kernel id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kernel id of the thread that has the file open.
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// Sends a command without waiting for its end. See [`obey`] for the commands.
    pub fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").expect("the locker reads its commands");
    }

    /// Next reply.
    ///
    /// # Panics
    /// If none comes: the process hung or died.
    pub fn reply(&self) -> String {
        self.replies.recv_timeout(REPLY_DEADLINE).expect("the locker answers in time")
    }

    /// Next reply if it comes in time, `None` if not (or if the process is gone).
    pub fn reply_within(&self, wait: Duration) -> Option<String> {
        self.replies.recv_timeout(wait).ok()
    }

    /// Sends a command and waits for its reply.
    pub fn run(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }

    /// Sends a command that must succeed.
    ///
    /// # Panics
    /// If libtdb refused.
    pub fn must(&mut self, command: &str) {
        assert_eq!(self.run(command), "ok", "libtdb: {command}");
    }

    /// Waits until the thread that has the file open sleeps in the given system call (a lock).
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_asleep_in(&self, syscall: libc::c_long) {
        let give_up = Instant::now() + REPLY_DEADLINE;
        while !sleeps_in(self.pid(), self.thread, syscall) {
            assert!(Instant::now() < give_up, "the locker never slept in system call {syscall}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How the process ended, if it has.
    pub fn try_wait(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Where every thread of the process is in the kernel, for a message about a hang.
    pub fn whereabouts(&self) -> String {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return "gone".to_owned();
        };
        let read = |task: &Path, name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        tasks
            .flatten()
            .map(|task| (task.file_name(), read(&task.path(), "syscall"), task.path()))
            .map(|(id, call, task)| {
                format!("{id:?} in {} ({})", call.trim(), read(&task, "comm").trim())
            })
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child is ours");
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True if the thread is blocked in this system call right now.
pub fn sleeps_in(pid: u32, thread: u32, syscall: libc::c_long) -> bool {
    let path = format!("/proc/{pid}/task/{thread}/syscall");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()) == Some(syscall)
}

/// Body of the test `libtdb_locker_process`: does nothing in an ordinary run, serves commands and
/// exits in the process that [`Locker::start`] made.
pub fn serve_if_locker() {
    let Some((path, hash_size, flags)) = locker_order() else { return };
    let tdb = Tdb::create(&path, hash_size, flags);
    serve(tdb.as_ref().map(|tdb| |line: &str| obey(tdb, line)));
}

/// Path, hash size and flags that this process was started for by [`Locker::start_as`]; `None` in
/// an ordinary run.
pub fn locker_order() -> Option<(PathBuf, i32, i32)> {
    let path = std::env::var_os(LOCKER_FILE)?;
    let open = std::env::var(LOCKER_OPEN).expect("set together with the file");
    let (hash_size, flags) = open.split_once(':').expect("HS:FLAGS");
    Some((path.into(), hash_size.parse().expect("HS"), flags.parse().expect("FLAGS")))
}

/// Answers commands until the end of the input, then exits. `Err` is why the file is not open.
pub fn serve(obey: Result<impl FnMut(&str) -> String, impl std::fmt::Display>) -> ! {
    let mut obey = match obey {
        Ok(obey) => obey,
        Err(error) => {
            println!("\n{MARK}open {error}");
            std::process::exit(1);
        }
    };
    // SAFETY: no preconditions.
    println!("\n{MARK}open ok {}", unsafe { libc::gettid() });
    // Not `lines()`: it would keep the input locked, and a held traverse reads on its own.
    let mut line = String::new();
    while io::stdin().read_line(&mut line).is_ok_and(|read| read > 0) {
        println!("{MARK}{}", obey(line.trim_end_matches('\n')));
        line.clear();
    }
    std::process::exit(0);
}

/// One command: `chainlock KEY`, `chainlock_nonblock KEY`, `chainunlock KEY`, `chainlock_read KEY`,
/// `chainlock_read_nonblock KEY`, `chainunlock_read KEY`, `lockall`, `lockall_nonblock`,
/// `unlockall`, `lockall_read`, `lockall_read_nonblock`, `unlockall_read`, `start`,
/// `start_nonblock`, `prepare`, `commit`, `cancel`, `store KEY VALUE`, `append KEY VALUE`,
/// `hold KEY MICROSECONDS` (lock, sleep, unlock), `delete KEY`, `fetch KEY`, `seqnum`, `check`, `wipe`, `repack`,
/// `traverse_hold` (visits the first record and sleeps in the callback until the next line),
/// `traverse_hold_all` (the same with every record), `traverse_show` (the same, saying `at KEY`),
/// `firstkey`, `nextkey KEY` (say `at KEY` or `end`).
/// Keys and values are words without blanks. Replies `ok`, `error CODE`, or the value.
pub fn obey(tdb: &Tdb, line: &str) -> String {
    let mut words = line.split(' ');
    let command = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default().as_bytes();
    let value = words.next().unwrap_or_default().as_bytes();
    let outcome = match command {
        "chainlock" => tdb.chainlock(key),
        "chainlock_nonblock" => tdb.chainlock_nonblock(key),
        "chainunlock" => tdb.chainunlock(key),
        "chainlock_read" => tdb.chainlock_read(key),
        "chainlock_read_nonblock" => tdb.chainlock_read_nonblock(key),
        "chainunlock_read" => tdb.chainunlock_read(key),
        "lockall" => tdb.lockall(),
        "lockall_nonblock" => tdb.lockall_nonblock(),
        "unlockall" => tdb.unlockall(),
        "lockall_read" => tdb.lockall_read(),
        "lockall_read_nonblock" => tdb.lockall_read_nonblock(),
        "unlockall_read" => tdb.unlockall_read(),
        "start" => tdb.transaction_start(),
        "start_nonblock" => tdb.transaction_start_nonblock(),
        "prepare" => tdb.transaction_prepare_commit(),
        "commit" => tdb.transaction_commit(),
        "cancel" => tdb.transaction_cancel(),
        "hold" => tdb.chainlock(key).and_then(|()| {
            let micros = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            std::thread::sleep(Duration::from_micros(micros.unwrap_or(0)));
            tdb.chainunlock(key)
        }),
        "store" => tdb.store(key, value, mode::REPLACE),
        "append" => tdb.append(key, value),
        "delete" => tdb.delete(key),
        "check" => tdb.check(),
        "wipe" => tdb.wipe_all(),
        "repack" => tdb.repack(),
        "seqnum" => return tdb.seqnum().to_string(),
        "fetch" => {
            return match tdb.fetch(key) {
                Some(value) => text(&value),
                None => format!("error {}", tdb.error()),
            };
        }
        "firstkey" | "nextkey" => {
            let key = tdb.next_key((command == "nextkey").then_some(key));
            return key.map_or("end".to_owned(), |key| format!("at {}", text(&key)));
        }
        "traverse_hold" | "traverse_hold_all" | "traverse_show" => {
            let visited = tdb.traverse_read(|key, _| {
                match command {
                    "traverse_show" => println!("{MARK}at {}", text(key)),
                    _ => println!("{MARK}holding"),
                }
                let mut line = String::new();
                let _ = io::stdin().read_line(&mut line);
                command != "traverse_hold"
            });
            visited.map(|_| ())
        }
        other => return format!("unknown command {other}"),
    };
    match outcome {
        Ok(()) => "ok".to_owned(),
        Err(TdbError(code)) => format!("error {code}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
