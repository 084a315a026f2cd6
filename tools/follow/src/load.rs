//! Clients that work while a scenario does things to their cluster.
//!
//! Role: threads, one client each, that can be told to leave a node before it is hurt, as smbd leaves
//! with its machine; and proof that they got on ([`Load::rounds`]). What they do is in the modules
//! below.
//! Invariants
//! - A worker that is paused has no client: it connects anew when it goes on.
//! - A worker's first error ends it, and every later wait on the load reports it.

pub mod churn;
pub mod counters;
pub mod messages;
pub mod toggles;
pub mod transactions;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmaster_client::Client;

use crate::PATIENCE;
use crate::life::Life;

/// Set to `1`: the long form of everything that runs beside a load.
pub const SOAK: &str = "RINGMASTER_SOAK";

/// Pause of a worker after each round: the load is there to be correct, not to be heavy.
const PACE: Duration = Duration::from_millis(8);

/// What a worker does over and over.
pub trait Work: Send {
    /// What it works with besides its client; made anew with every client.
    type Tool;

    /// Starts with a new client.
    ///
    /// # Errors
    /// The cluster does not let it.
    fn begin(&mut self, client: &mut Client) -> Result<Self::Tool>;

    /// Once.
    ///
    /// # Errors
    /// Something is lost, or does not work.
    fn round(&mut self, client: &mut Client, tool: &mut Self::Tool) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    Working,
    Paused,
    Ended(Option<String>),
}

#[derive(Debug)]
struct Desk {
    orders: Mutex<(Wanted, Doing)>,
    changed: Condvar,
    rounds: AtomicU64,
}

struct Worker {
    name: String,
    node: usize,
    desk: Arc<Desk>,
}

/// Workers at the nodes of a cluster.
#[derive(Default)]
pub struct Load {
    workers: Vec<Worker>,
}

impl Desk {
    fn orders(&self) -> MutexGuard<'_, (Wanted, Doing)> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, wanted: Wanted) {
        self.orders().0 = wanted;
        self.changed.notify_all();
    }

    fn report(&self, doing: Doing) {
        self.orders().1 = doing;
        self.changed.notify_all();
    }

    fn wanted(&self) -> Wanted {
        self.orders().0
    }

    /// What the worker does once `accepted` is so; or the last state when time is up.
    fn wait_for(&self, accepted: impl Fn(&Doing) -> bool) -> Doing {
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        let mut orders = self.orders();
        while !accepted(&orders.1) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            orders =
                self.changed.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        orders.1.clone()
    }

    /// Waits for another order than to pause. One that was resumed and paused again before it has
    /// noticed is paused still.
    fn wait_paused(&self) -> Wanted {
        let mut orders = self.orders();
        while orders.0 == Wanted::Pause {
            if orders.1 != Doing::Paused {
                orders.1 = Doing::Paused;
                self.changed.notify_all();
            }
            orders = self.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
        orders.0
    }
}

impl Load {
    /// A load without workers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `work` done by a client of `node` from now on.
    pub fn add(&mut self, life: &Life, node: usize, name: &str, work: impl Work + 'static) {
        let desk = Arc::new(Desk {
            orders: Mutex::new((Wanted::Run, Doing::Working)),
            changed: Condvar::new(),
            rounds: AtomicU64::new(0),
        });
        let (socket, its_desk) = (life.node(node).socket(), Arc::clone(&desk));
        thread::spawn(move || {
            let mut work = work;
            let done = labour(&mut work, &socket, &its_desk);
            its_desk.report(Doing::Ended(done.err().map(|error| format!("{error:#}"))));
        });
        self.workers.push(Worker { name: format!("{name} at node {node}"), node, desk });
    }

    /// Waits until every worker that is not paused has done `count` more rounds; a hundred times as
    /// many where [`SOAK`] is set.
    ///
    /// # Errors
    /// One has failed, or does not get on.
    pub fn rounds(&self, count: u64) -> Result<()> {
        let soak = std::env::var_os(SOAK).is_some_and(|value| value == "1");
        let (count, patience) = if soak { (count * 100, PATIENCE * 10) } else { (count, PATIENCE) };
        let running = self.workers.iter().filter(|worker| worker.desk.wanted() == Wanted::Run);
        let goals: Vec<_> = running
            .map(|worker| (worker, worker.desk.rounds.load(Ordering::Relaxed) + count))
            .collect();
        let deadline = Instant::now() + patience;
        for (worker, goal) in goals {
            loop {
                let rounds = worker.desk.rounds.load(Ordering::Relaxed);
                if rounds >= goal {
                    break;
                }
                worker.check()?;
                if Instant::now() >= deadline {
                    bail!("{}: {} of {count} rounds to go", worker.name, goal - rounds);
                }
                thread::sleep(PACE);
            }
        }
        self.check()
    }

    /// No worker has failed so far.
    ///
    /// # Errors
    /// One has.
    pub fn check(&self) -> Result<()> {
        self.workers.iter().try_for_each(Worker::check)
    }

    /// Has the workers of `node` finish their round and close their connections.
    ///
    /// # Errors
    /// One has failed, or does not come to its end.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.pause_those(|_, at| at == node)
    }

    /// The same for the workers that `which` picks by name and node.
    ///
    /// # Errors
    /// As [`Load::pause`].
    pub fn pause_those(&self, which: impl Fn(&str, usize) -> bool) -> Result<()> {
        for worker in self.those(&which) {
            worker.desk.order(Wanted::Pause);
        }
        for worker in self.those(&which) {
            match worker.desk.wait_for(|doing| *doing != Doing::Working) {
                Doing::Paused => {}
                Doing::Working => bail!("{}: does not finish its round", worker.name),
                Doing::Ended(_) => worker.check()?,
            }
        }
        Ok(())
    }

    /// Has the workers of `node` go on.
    pub fn resume(&self, node: usize) {
        self.resume_those(|_, at| at == node);
    }

    /// The same for the workers that `which` picks by name and node.
    pub fn resume_those(&self, which: impl Fn(&str, usize) -> bool) {
        for worker in self.those(&which) {
            let mut orders = worker.desk.orders();
            orders.0 = Wanted::Run;
            if orders.1 == Doing::Paused {
                orders.1 = Doing::Working;
            }
            worker.desk.changed.notify_all();
        }
    }

    /// Ends all workers.
    ///
    /// # Errors
    /// One has failed, or does not come to its end.
    pub fn finish(self) -> Result<()> {
        for worker in &self.workers {
            worker.desk.order(Wanted::Stop);
        }
        for worker in &self.workers {
            match worker.desk.wait_for(|doing| matches!(doing, Doing::Ended(_))) {
                Doing::Ended(None) => {}
                Doing::Ended(Some(error)) => bail!("{}: {error}", worker.name),
                doing => bail!("{}: is {doing:?} still", worker.name),
            }
        }
        Ok(())
    }

    fn those(&self, which: &impl Fn(&str, usize) -> bool) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| which(&worker.name, worker.node))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Not waited for: one that hangs ends with its daemon.
        for worker in &self.workers {
            worker.desk.order(Wanted::Stop);
        }
    }
}

impl Worker {
    fn check(&self) -> Result<()> {
        match &self.desk.orders().1 {
            Doing::Ended(Some(error)) => bail!("{}: {error}", self.name),
            _ => Ok(()),
        }
    }
}

fn labour(work: &mut impl Work, socket: &Path, desk: &Desk) -> Result<()> {
    loop {
        let mut client = Client::connect_to(socket, PATIENCE)?;
        let mut tool = work.begin(&mut client).context("at the beginning")?;
        while desk.wanted() == Wanted::Run {
            work.round(&mut client, &mut tool)?;
            desk.rounds.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PACE);
        }
        drop((client, tool));
        if desk.wanted() == Wanted::Pause && desk.wait_paused() == Wanted::Run {
            continue;
        }
        return Ok(());
    }
}
