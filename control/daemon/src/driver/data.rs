//! Orders to the data plane: shards and database workers.
//!
//! Invariants
//! - Freeze: first every shard leaves the database alone, then the worker takes all its locks.
//!   Thaw: the other way round. So no shard ever waits for its own daemon.
//! - An outcome is given when all shards and the worker have done it.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.9, 2.2.

use std::{cell::Cell, rc::Rc, sync::Arc};

use ringmaster_control::{
    node::{
        Outcome,
        world::{DataAsk, Registration},
    },
    plane::Token,
};
use ringmaster_dataplane::{
    record,
    shard::{
        limits::SLOW_LOCK,
        message::{Order, RegistryChange},
        statistics::{self, ShardStatistics},
        updates::CopyUpdates,
    },
};
use ringmaster_protocol::{
    DbId, Encode,
    database::DbFlags,
    statistics::{DbStatistics, HotKey, Statistics},
    tunable::Tunable,
};
use ringmaster_storage::ltdb::{DatabaseKind, file_path};

use super::{Attached, Driver, Job, Report, nodes::Window};
use crate::health::HealthFile;
use crate::worker::{self, Facts, Opened, Sent, Worker};

/// A worker's way to the main thread.
struct ToDriver(tokio::sync::mpsc::Sender<Report>, Window);

impl worker::Report for ToDriver {
    fn opened(&self, db: DbId, opened: Result<Opened, String>) {
        // Fails only when the daemon is ending.
        let _ = self.0.blocking_send(Report::Opened(db, opened));
    }
    fn sent(&self, sent: Sent) {
        // A slow peer must not fill our memory: wait for room in the window.
        if let Some(credit) = self.1.take(sent.payload_len()) {
            let _ = self.0.blocking_send(Report::Sent(sent, credit));
        }
    }
    fn done(&self, _: DbId, job: u64, outcome: Outcome) {
        self.1.next_stream();
        let _ = self.0.blocking_send(Report::JobDone(job, outcome));
    }
}

impl Driver {
    pub(super) fn data(&mut self, token: Token, ask: DataAsk) {
        match ask {
            DataAsk::Attach { name, flags, frozen } => self.attach(token, &name, flags, frozen),
            DataAsk::Detach(db) => self.detach(token, db),
            DataAsk::Freeze(db) => self.freeze(token, db),
            DataAsk::Thaw(db, generation) => {
                self.job(Job::Thaw(token, db, generation), db, worker::Job::Thaw);
            }
            DataAsk::Replaced(db) => self.order_done(token, move || Order::Replaced(db)),
            DataAsk::SetGeneration(db, generation) => {
                self.order_done(token, move || Order::SetGeneration(db, generation));
            }
            DataAsk::AddFlags(db, flags) => {
                self.order_done(token, move || Order::AddFlags(db, flags));
            }
            DataAsk::EnableSeqnum(db) => {
                self.job(Job::EnableSeqnum(token, db), db, worker::Job::EnableSeqnum);
            }
            DataAsk::CommitActive(db, active) => {
                self.order_done(token, move || Order::CommitActive(db, active));
            }
            DataAsk::UpdateCopies { db, generation, buffer } => {
                let update = Arc::new(CopyUpdates { db, generation, buffer });
                self.order_done(token, move || Order::UpdateCopies(Arc::clone(&update)));
            }
            DataAsk::VacuumFetch { db, buffer } => {
                let buffer: Arc<[u8]> = buffer.into();
                self.order_done(token, move || Order::VacuumFetch(db, Arc::clone(&buffer)));
            }
            DataAsk::VacuumBegin { db, full } => self.vacuum(token, db, full),
            DataAsk::Statistics => self.gather(token, |_, parts| {
                let mut total = Statistics::default();
                statistics::add_up(&mut total, &parts);
                Outcome::Statistics(Box::new(total))
            }),
            DataAsk::DbStatistics(db) => {
                self.gather(token, move |_, parts| Outcome::Bytes(db_statistics(db, &parts)));
            }
            DataAsk::ResetStatistics => self.order_done(token, || Order::ResetStatistics),
            DataAsk::Register(registration) => self.register(token, registration),
            DataAsk::Traverse { db, reqid, to, with_empty } => {
                self.traverse(token, db, worker::traverse::Wanted { reqid, to, with_empty });
            }
            DataAsk::RecordHealth(db, reason) => self.record_health(token, db, reason),
            DataAsk::Publish => self.publish(token),
            work => self.work(token, work),
        }
    }

    /// What the database's worker does alone.
    fn work(&mut self, token: Token, ask: DataAsk) {
        let batch_bytes = {
            let cx = self.plane.cx();
            cx.state().tunables.value(Tunable::RecBufferSizeLimit) as usize
        };
        let (db, job) = match ask {
            DataAsk::TransactionStart(db) => (db, worker::Job::TransactionStart),
            DataAsk::TransactionCancel(db) => (db, worker::Job::TransactionCancel),
            DataAsk::TransactionCommit(db) => (db, worker::Job::TransactionCommit),
            DataAsk::Wipe(db) => (db, worker::Job::Wipe),
            DataAsk::Pull { db, srvid, to } => (db, worker::Job::Pull { srvid, to, batch_bytes }),
            DataAsk::Push { db, buffer } => (db, worker::Job::Push(buffer)),
            DataAsk::UpdateRecords { db, buffer } => (db, worker::Job::Update(buffer)),
            DataAsk::PushRecord { db, buffer } => (db, worker::Job::PushRecord(buffer)),
            DataAsk::TryDelete { db, buffer } => (db, worker::Job::TryDelete(buffer)),
            DataAsk::VacuumStep(db) => (db, worker::Job::VacuumStep),
            DataAsk::VacuumDelete { db, buffer } => (db, worker::Job::VacuumDelete(buffer)),
            DataAsk::MergeFreeBlocks(db, limit) => (db, worker::Job::MergeFreeBlocks(limit)),
            DataAsk::DbSeqnum(db) => (db, worker::Job::DbSeqnum),
            DataAsk::TdbSeqnum(db) => (db, worker::Job::TdbSeqnum),
            DataAsk::BumpTdbSeqnum(db) => (db, worker::Job::BumpTdbSeqnum),
            DataAsk::Check(db) => (db, worker::Job::Check),
            other => {
                let why = format!("{other:?} is not carried out by this daemon");
                return self.outcome(token, Outcome::Failed(why));
            }
        };
        self.job(Job::Ask(token), db, job);
    }

    fn health_file(&self) -> HealthFile {
        HealthFile::new(&self.settings.state_dir, self.pnn())
    }

    /// Writes a persistent database's health down, off the main thread: it waits for the disk.
    fn record_health(&mut self, token: Token, db: DbId, reason: Option<String>) {
        let name = self.plane.cx().state().database(db).map(|db| db.name.clone());
        let Some(name) = name else {
            let why = format!("database {db} is not attached");
            return self.outcome(token, Outcome::Failed(why));
        };
        let (file, report) = (self.health_file(), self.report.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = match file.record(&name, reason.as_deref()) {
                Ok(()) => Outcome::Done,
                Err(why) => Outcome::Failed(why),
            };
            // Fails only when the daemon is ending.
            let _ = report.blocking_send(Report::Outcome(token, outcome));
        });
    }

    fn attach(&mut self, token: Token, name: &str, flags: DbFlags, frozen: bool) {
        let id = DbId::from_name(name);
        if self.workers.contains_key(&id) {
            let why = format!("{name} is attached, or another name with the same id {id}");
            return self.outcome(token, Outcome::Failed(why));
        }
        let kind = if flags.intersects(DbFlags::PERSISTENT) {
            DatabaseKind::Persistent
        } else if flags.intersects(DbFlags::REPLICATED) {
            DatabaseKind::Replicated
        } else {
            DatabaseKind::Volatile
        };
        let folder = if kind.is_persistent() {
            &self.settings.persistent_dir
        } else {
            &self.settings.volatile_dir
        };
        if kind.is_persistent()
            && let Err(why) = self.refuse_unhealthy(name)
        {
            return self.outcome(token, Outcome::Failed(why));
        }
        let path = file_path(folder, name, self.pnn());
        let (hash_size, lmasters) = {
            let cx = self.plane.cx();
            let state = cx.state();
            let hash_size = state.tunables.value(Tunable::DatabaseHashSize);
            (hash_size, Arc::from(state.vnn_map.map.as_slice()))
        };
        let mutexes = self.settings.tdb_mutexes && ringmaster_storage::mutex::supported().is_ok();
        let facts = Facts { id, flags, pnn: self.pnn(), lmasters };
        let options = kind.open_options(hash_size, mutexes);
        match Worker::start(facts, path.clone(), options, self.reporter()) {
            Ok(worker) => {
                let waiting = Some((token, flags, frozen));
                self.workers.insert(id, Attached { worker, opened: None, path, waiting });
            }
            Err(error) => {
                let why = format!("cannot start a thread for {name}: {error}");
                self.outcome(token, Outcome::Failed(why));
            }
        }
    }

    /// A database that is recorded as unhealthy is not attached, as in C.
    fn refuse_unhealthy(&self, name: &str) -> Result<(), String> {
        match self.health_file().reason(name)? {
            None => Ok(()),
            Some(reason) => Err(format!(
                "{name} is recorded as unhealthy ({reason}); restore its file from a backup and \
                 remove the record of it, persistent_health.tdb.{} in the state directory",
                self.pnn()
            )),
        }
    }

    /// The worker has opened the file: now the shards.
    pub(super) fn opened(&mut self, db: DbId, opened: Result<Opened, String>) {
        let Some(attached) = self.workers.get_mut(&db) else { return };
        let Some((token, flags, frozen)) = attached.waiting.take() else { return };
        match opened {
            Err(why) => {
                self.workers.remove(&db);
                self.outcome(token, Outcome::Failed(why));
            }
            Ok(opened) => {
                attached.opened = Some(opened.clone());
                let (path, open_flags) = (attached.path.clone(), opened.flags);
                let max_dead = {
                    let cx = self.plane.cx();
                    cx.state().tunables.value(Tunable::DatabaseMaxDead)
                };
                let database = opened.database;
                let order = move || {
                    let database = Arc::clone(&database);
                    Order::Attach { db, flags, database, max_dead, frozen }
                };
                self.shards.order(order, move |driver: &mut Self, done| {
                    let outcome = if done {
                        Outcome::Attached { path, open_flags }
                    } else {
                        Outcome::Failed("a shard could not open the database".into())
                    };
                    driver.outcome(token, outcome);
                });
            }
        }
    }

    fn detach(&mut self, token: Token, db: DbId) {
        self.shards.order(
            move || Order::Detach(db),
            move |driver: &mut Self, _| {
                if let Some(attached) = driver.workers.remove(&db) {
                    attached.worker.end();
                }
                driver.outcome(token, Outcome::Done);
            },
        );
    }

    fn freeze(&mut self, token: Token, db: DbId) {
        self.shards.order(
            move || Order::Freeze(db),
            move |driver: &mut Self, _| {
                driver.job(Job::Ask(token), db, worker::Job::Freeze);
            },
        );
    }

    /// A vacuum round: what the shards have scheduled goes to the worker.
    fn vacuum(&mut self, token: Token, db: DbId, full: bool) {
        self.shards.order(
            move || Order::TakeDeletions(db),
            move |driver: &mut Self, _| {
                let scheduled = driver.deletions.remove(&db).unwrap_or_default();
                driver.job(Job::Ask(token), db, worker::Job::VacuumBegin { scheduled, full });
            },
        );
    }

    /// A way to the main thread, with a window of its own.
    pub(super) fn reporter(&self) -> impl worker::Report + use<> {
        ToDriver(self.report.clone(), Window::new())
    }

    /// The number under which the end of a job is reported.
    pub(super) fn new_job(&mut self, job: Job) -> u64 {
        self.next_job += 1;
        self.jobs.insert(self.next_job, job);
        self.next_job
    }

    /// Gives a job to the database's worker.
    pub(super) fn job(&mut self, job: Job, db: DbId, work: worker::Job) {
        let number = self.new_job(job);
        if matches!(work, worker::Job::Freeze) {
            self.slow_locks.insert(number, report_slow(db, self.report.clone()));
        }
        let queued =
            self.workers.get(&db).is_some_and(|attached| attached.worker.order(number, work));
        if !queued {
            let why = format!("database {db} is not attached, or its worker has too much to do");
            self.job_done(number, Outcome::Failed(why));
        }
    }

    pub(super) fn job_done(&mut self, number: u64, outcome: Outcome) {
        if let Some(reports) = self.slow_locks.remove(&number) {
            reports.abort();
        }
        match self.jobs.remove(&number) {
            None => {}
            Some(Job::Ask(token)) => self.outcome(token, outcome),
            Some(Job::Traverse(token)) => self.traversed(token, outcome),
            Some(Job::EnableSeqnum(token, db)) if outcome == Outcome::Done => {
                self.order_done(token, move || Order::EnableSeqnum(db));
            }
            Some(Job::EnableSeqnum(token, _)) => self.outcome(token, outcome),
            Some(Job::Recover(db)) => {
                if let Outcome::Failed(why) = outcome {
                    return self.broken(db, &why);
                }
                self.shards.order(move || Order::Recovered(db), |_, _| {});
            }
            Some(Job::Thaw(token, db, generation)) => {
                self.shards.order(
                    move || Order::Thaw(db, generation),
                    move |driver: &mut Self, _| driver.outcome(token, outcome),
                );
            }
        }
    }

    /// An order whose outcome is that all shards have done it.
    fn order_done(&mut self, token: Token, order: impl Fn() -> Order) {
        self.shards.order(order, move |driver: &mut Self, done| {
            let refused = || Outcome::Failed("a shard has refused".into());
            driver.outcome(token, if done { Outcome::Done } else { refused() });
        });
    }

    fn gather(
        &mut self,
        token: Token,
        sum: impl FnOnce(&mut Self, Vec<ShardStatistics>) -> Outcome + 'static,
    ) {
        // Which order the parts belong to is only known once it has been given.
        let order = Rc::new(Cell::new(None));
        let given = Rc::clone(&order);
        let ack = self.shards.order(
            || Order::Statistics,
            move |driver: &mut Self, _| {
                let parts = given.get().and_then(|ack| driver.statistics.remove(&ack));
                let outcome = sum(driver, parts.unwrap_or_default());
                driver.outcome(token, outcome);
            },
        );
        order.set(Some(ack));
    }

    fn register(&mut self, token: Token, registration: Registration) {
        let id = |client: ringmaster_control::node::world::ClientId| record::ClientId(client.0);
        let (change, known) = match registration {
            Registration::Srvid(srvid, client) => {
                let known = self.registry.register(srvid, id(client));
                (RegistryChange::Register(srvid, id(client)), known)
            }
            Registration::NoSrvid(srvid, client) => {
                let known = self.registry.deregister(srvid, id(client));
                (RegistryChange::Deregister(srvid, id(client)), known)
            }
            Registration::Tunnel(tunnel, client) => {
                let known = self.registry.register_tunnel(tunnel, id(client));
                (RegistryChange::RegisterTunnel(tunnel, id(client)), known)
            }
            Registration::NoTunnel(tunnel, client) => {
                let known = self.registry.deregister_tunnel(tunnel, id(client));
                (RegistryChange::DeregisterTunnel(tunnel, id(client)), known)
            }
        };
        if !known {
            return self.outcome(token, Outcome::Failed("refused".into()));
        }
        self.change_registry(change, move |driver, _| driver.outcome(token, Outcome::Done));
    }

    fn publish(&mut self, token: Token) {
        let view = Arc::new(self.view());
        self.published = Arc::clone(&view);
        let lmasters: Arc<[_]> = view.vnn_map.map.as_slice().into();
        for attached in self.workers.values() {
            attached.worker.set_lmasters(Arc::clone(&lmasters));
        }
        self.order_done(token, move || Order::View(Arc::clone(&view)));
    }
}

/// Says every ten seconds how long a freeze has waited, until it is aborted.
fn report_slow(db: DbId, report: tokio::sync::mpsc::Sender<Report>) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_local(async move {
        let mut waited = std::time::Duration::ZERO;
        loop {
            tokio::time::sleep(SLOW_LOCK).await;
            waited += SLOW_LOCK;
            // Fails only when the daemon is ending.
            let _ = report.send(Report::SlowFreeze(db, waited.as_secs())).await;
        }
    })
}

/// Reply of GET_DB_STATISTICS from the counters of all shards.
fn db_statistics(db: DbId, shards: &[ShardStatistics]) -> Vec<u8> {
    let mut locks = ringmaster_dataplane::shard::store::LockCounters::default();
    let mut total = DbStatistics::default();
    let mut hot: Vec<&record::HotKey> = Vec::new();
    let ours = shards.iter().flat_map(|shard| &shard.databases).filter(|(id, ..)| *id == db);
    for (_, more, records) in ours {
        statistics::add_locks(&mut locks, more);
        let saturated = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        total.ro_delegations += saturated(records.ro_delegations);
        total.ro_revokes += saturated(records.ro_revokes);
        for (sum, bucket) in total.hop_count_bucket.iter_mut().zip(records.hop_count_bucket) {
            *sum += bucket;
        }
        hot.extend(&records.hot_keys);
    }
    total.locks = statistics::lock_statistics(&locks);
    // The hottest ten of all shards, used slots first and ascending, as C keeps them.
    hot.sort_by_key(|hot| hot.count);
    let hottest = hot.len().saturating_sub(total.hot_keys.len());
    for (slot, hot) in total.hot_keys.iter_mut().zip(&hot[hottest..]) {
        *slot = HotKey { count: hot.count, key: &hot.key };
    }
    total.to_bytes()
}
