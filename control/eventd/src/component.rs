//! The events of one component: one runs at a time, others wait, monitor gives way.
//!
//! Role: a pure state machine; what it wants done comes out as actions.
//! Invariants
//! - At most one event runs; the rest waits in order of arrival. At most `WAITING_MAX` wait.
//! - A running `monitor` is cancelled by any other event; a `monitor` that finds something running
//!   is cancelled at once.
//! - One deadline covers waiting and all scripts of an event.
//! - Every request gets exactly one answer.
//!
//! Origin: `docs/spec/cluster-semantics.md` 10.3; `ctdb/common/run_event.c`.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use ringmaster_protocol::process::Timeval;

/// Events that may wait; more are answered EIO.
const WAITING_MAX: usize = 1_024;

/// Errno values that C sends as results (Linux).
pub mod errno {
    /// No such component.
    pub const ENOENT: i32 = 2;
    /// Killed by a signal.
    pub const EINTR: i32 = 4;
    /// Internal failure.
    pub const EIO: i32 = 5;
    /// Not executable; as an event's result: a script has failed.
    pub const ENOEXEC: i32 = 8;
    /// No permission to execute.
    pub const EACCES: i32 = 13;
    /// Never ran; a bad name.
    pub const EINVAL: i32 = 22;
    /// Did not run.
    pub const ENOMSG: i32 = 42;
    /// Took too long.
    pub const ETIMEDOUT: i32 = 110;
    /// Another event came first.
    pub const ECANCELED: i32 = 125;
}

/// Who asked; opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asker {
    /// Connection.
    pub connection: u64,
    /// Its number for the request.
    pub reqid: u32,
}

/// A script file, as listed for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// File name without `.script`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Executable by its owner.
    pub enabled: bool,
}

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status.
    Exited(i32),
    /// By a signal.
    Signalled,
    /// It could not be executed, for this errno.
    NotRun(i32),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An event is to be run. The scripts have been listed, or the component does not exist.
    Run {
        /// Who asked.
        asker: Asker,
        /// Name of the event.
        event: String,
        /// Its arguments.
        args: Vec<String>,
        /// Seconds; 0 has passed already (C).
        timeout_s: u32,
        /// Go on after a failure.
        run_all: bool,
    },
    /// The scripts of the component, asked for with [`Action::List`]; an errno if there are none to
    /// be had.
    Listed(Result<Vec<Script>, i32>),
    /// The running script has ended.
    Ended {
        /// How.
        ending: Ending,
        /// What it printed.
        output: Vec<u8>,
        /// When.
        at: Timeval,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// List the scripts now; the answer is [`Event::Listed`].
    List,
    /// Start a script with event and arguments, in a process group of its own.
    Start {
        /// Which.
        script: Script,
        /// First argument.
        event: String,
        /// The others.
        args: Vec<String>,
    },
    /// Kill the running script's process group; no [`Event::Ended`] is wanted.
    Kill,
    /// The running script hangs: run the debug script on it, then end it; no [`Event::Ended`] is
    /// wanted.
    Debug {
        /// For the debug script.
        event: String,
    },
    /// Answer a request with this errno (0: success).
    Answer {
        /// Whom.
        asker: Asker,
        /// With what.
        result: i32,
    },
}

/// What is known of a script's last run in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// File name without `.script`.
    pub name: String,
    /// Start.
    pub begin: Timeval,
    /// End.
    pub end: Timeval,
    /// 0, exit status, or negative errno.
    pub result: i32,
    /// What it printed.
    pub output: Vec<u8>,
}

/// What is known of an event's last run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// 0, exit status of the script that failed, or a negative errno.
    pub summary: i32,
    /// In the order in which they run.
    pub scripts: Vec<Record>,
}

/// An event that waits or runs.
#[derive(Debug)]
struct Run {
    asker: Asker,
    event: String,
    args: Vec<String>,
    deadline_ms: u64,
    run_all: bool,
    scripts: VecDeque<Script>,
    done: Vec<Record>,
    summary: i32,
    current: Option<(Script, Timeval)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Component {
    running: Option<Run>,
    waiting: VecDeque<Run>,
    history: BTreeMap<String, History>,
}

/// Event that gives way to all others.
const MONITOR: &str = "monitor";

impl Component {
    /// Nothing has run yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the last run of an event came to; `None` when it has never run.
    #[must_use]
    pub fn history(&self, event: &str) -> Option<&History> {
        self.history.get(event)
    }

    /// When [`Event::Tick`] is wanted, in milliseconds of the caller's clock.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let runs = self.running.iter().chain(&self.waiting);
        runs.map(|run| run.deadline_ms).min()
    }

    /// The only way in. `now_ms` is a clock that never goes back, `wall` the time of day.
    pub fn handle(&mut self, now_ms: u64, wall: Timeval, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Run { asker, event, args, timeout_s, run_all } => {
                let deadline_ms = now_ms.saturating_add(u64::from(timeout_s) * 1_000);
                let run = Run {
                    asker,
                    event,
                    args,
                    deadline_ms,
                    run_all,
                    scripts: VecDeque::new(),
                    done: Vec::new(),
                    summary: 0,
                    current: None,
                };
                self.arrive(run, out);
            }
            Event::Listed(scripts) => self.listed(now_ms, wall, scripts, out),
            Event::Ended { ending, output, at } => {
                self.ended(ending, output, at);
                self.go_on(now_ms, wall, out);
            }
            Event::Tick => self.tick(now_ms, wall, out),
        }
    }

    fn arrive(&mut self, run: Run, out: &mut Vec<Action>) {
        if self.waiting.len() >= WAITING_MAX {
            return out.push(Action::Answer { asker: run.asker, result: errno::EIO });
        }
        if let Some(running) = &self.running {
            if run.event == MONITOR {
                out.push(Action::Answer { asker: run.asker, result: errno::ECANCELED });
                return;
            }
            if running.event == MONITOR {
                let (asker, started) = (running.asker, running.current.is_some());
                if started {
                    out.push(Action::Kill);
                }
                // A cancelled run leaves no trace in the status.
                out.push(Action::Answer { asker, result: errno::ECANCELED });
                self.running = None;
            }
        }
        self.waiting.push_back(run);
        self.start_next(out);
    }

    fn start_next(&mut self, out: &mut Vec<Action>) {
        if self.running.is_some() {
            return;
        }
        self.running = self.waiting.pop_front();
        if self.running.is_some() {
            out.push(Action::List);
        }
    }

    fn listed(
        &mut self,
        now_ms: u64,
        wall: Timeval,
        scripts: Result<Vec<Script>, i32>,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = &mut self.running else { return };
        match scripts {
            Err(result) => {
                out.push(Action::Answer { asker: run.asker, result });
                self.running = None;
                self.start_next(out);
            }
            Ok(scripts) => {
                run.scripts = scripts.into();
                self.go_on(now_ms, wall, out);
            }
        }
    }

    /// Starts the next script that is to run, or ends the event.
    fn go_on(&mut self, now_ms: u64, wall: Timeval, out: &mut Vec<Action>) {
        let Some(run) = &mut self.running else { return };
        if run.current.is_some() {
            return;
        }
        let failed = run.summary != 0 && !run.run_all;
        loop {
            if failed {
                break;
            }
            let Some(script) = run.scripts.pop_front() else { break };
            if !script.enabled {
                run.done.push(Record {
                    name: script.name,
                    begin: wall,
                    end: wall,
                    result: -errno::ENOEXEC,
                    output: Vec::new(),
                });
                continue;
            }
            if now_ms >= run.deadline_ms {
                run.scripts.push_front(script);
                return self.time_out(wall, out);
            }
            out.push(Action::Start {
                script: script.clone(),
                event: run.event.clone(),
                args: run.args.clone(),
            });
            run.current = Some((script, wall));
            return;
        }
        let result = match run.summary {
            0 => 0,
            summary if summary == -errno::ETIMEDOUT => errno::ETIMEDOUT,
            _ => errno::ENOEXEC,
        };
        self.finish(result, out);
    }

    fn ended(&mut self, ending: Ending, output: Vec<u8>, at: Timeval) {
        let Some(run) = &mut self.running else { return };
        let Some((script, begin)) = run.current.take() else { return };
        let result = match ending {
            Ending::Exited(0) => 0,
            // What a failed exec in the child tells its parent (C): errno above 64.
            Ending::Exited(status @ 64..=254) => -(status - 64),
            Ending::Exited(status) => status,
            Ending::Signalled => -errno::EINTR,
            Ending::NotRun(errno) => -errno,
        };
        let disabled = result == -errno::EACCES || result == -errno::ENOEXEC;
        let result = if disabled { -errno::ENOEXEC } else { result };
        if result != 0 && !disabled {
            run.summary = result;
        }
        run.done.push(Record { name: script.name, begin, end: at, result, output });
    }

    fn tick(&mut self, now_ms: u64, wall: Timeval, out: &mut Vec<Action>) {
        // Those that waited too long never start.
        let late: Vec<Asker> = self
            .waiting
            .iter()
            .filter(|run| run.deadline_ms <= now_ms)
            .map(|run| run.asker)
            .collect();
        self.waiting.retain(|run| run.deadline_ms > now_ms);
        for asker in late {
            out.push(Action::Answer { asker, result: errno::ETIMEDOUT });
        }
        if self.running.as_ref().is_some_and(|run| run.deadline_ms <= now_ms) {
            self.time_out(wall, out);
        }
    }

    /// The running event has used up its time.
    fn time_out(&mut self, wall: Timeval, out: &mut Vec<Action>) {
        let Some(run) = &mut self.running else { return };
        if let Some((script, begin)) = run.current.take() {
            out.push(Action::Debug { event: run.event.clone() });
            let result = -errno::ETIMEDOUT;
            let name = script.name;
            run.done.push(Record { name, begin, end: wall, result, output: Vec::new() });
        }
        run.summary = -errno::ETIMEDOUT;
        self.finish(errno::ETIMEDOUT, out);
    }

    /// Answers, remembers, starts the next.
    fn finish(&mut self, result: i32, out: &mut Vec<Action>) {
        let Some(run) = self.running.take() else { return };
        out.push(Action::Answer { asker: run.asker, result });
        let history = self.history.entry(run.event).or_default();
        let mut scripts = run.done;
        for script in run.scripts {
            // Not reached: what it did the last time stays.
            let known = history.scripts.iter().find(|record| record.name == script.name);
            scripts.push(known.cloned().unwrap_or(Record {
                name: script.name,
                begin: Timeval::default(),
                end: Timeval::default(),
                result: -errno::ENOMSG,
                output: Vec::new(),
            }));
        }
        *history = History { summary: run.summary, scripts };
        self.start_next(out);
    }
}

#[cfg(test)]
mod tests;
