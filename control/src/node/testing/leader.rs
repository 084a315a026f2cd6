//! A leader that is a script: the controls of a recovery in the order in which C's helper sends
//! them to one follower, to see what the follower does with each, and after each.
//!
//! Databases are recovered all at once, step by step: what one of them is in, the others are in.
//! Origin: `docs/spec/cluster-semantics.md` 7, A.7.

use ringmaster_protocol::{
    DbId, Destination, Generation, Rsn, Srvid,
    control::ControlRequest,
    database::{GetDbSeqnum, PullDb, TransDb, VnnMap},
    process::RecMode,
    record::{RecBufferBuilder, RecordFlags, RecordHeader},
};

use super::{Cluster, pnn};
use crate::node::world::{ControlAnswer, Origin};

/// Client id of its helper.
const HELPER: u32 = 40;

/// The key of the one record that a recovery brings.
pub(crate) const KEY: &[u8] = b"key";

/// One thing that it sends.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Control(ControlRequest<'static>),
    /// A batch of a push.
    Message(Srvid, Vec<u8>),
}

/// A node that leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leader(pub(crate) usize);

impl Leader {
    /// All steps of a recovery of `node` as it is now.
    pub(crate) fn recovery(
        self,
        cluster: &Cluster,
        node: usize,
        generation: u32,
        members: &[usize],
    ) -> Vec<Step> {
        let tid = Generation(generation);
        let map = members.iter().map(|member| pnn(*member)).collect();
        let ids: Vec<DbId> = cluster.state(node).databases.iter().map(|db| db.id).collect();
        let of_each =
            |step: &dyn Fn(DbId) -> Step| -> Vec<Step> { ids.iter().map(|id| step(*id)).collect() };
        let control = |control| Step::Control(control);
        let stream = |db: DbId, of: u64| {
            let srvid = Srvid::recovery(u64::from(generation) << 32 | of ^ u64::from(db.0));
            PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid }
        };
        let push = |db| Step::Message(stream(db, 1).srvid, self.batch(db, generation));
        [
            vec![
                control(ControlRequest::GetNodeMap),
                control(ControlRequest::GetCapabilities),
                control(ControlRequest::GetDbMap),
                control(ControlRequest::SetRecMode(RecMode::Active)),
                control(ControlRequest::StartRecovery),
                control(ControlRequest::SetVnnMap(VnnMap { generation: tid, map })),
            ],
            of_each(&|db| control(ControlRequest::GetDbName(db))),
            of_each(&|db| control(ControlRequest::DbFreeze(db))),
            of_each(&|db| control(ControlRequest::DbTransactionStart(TransDb { db, tid }))),
            of_each(&|db| control(ControlRequest::GetDbSeqnum(GetDbSeqnum { db }))),
            of_each(&|db| control(ControlRequest::DbPull(stream(db, 0)))),
            of_each(&|db| control(ControlRequest::WipeDatabase(TransDb { db, tid }))),
            of_each(&|db| control(ControlRequest::DbPushStart(stream(db, 1)))),
            of_each(&push),
            of_each(&|db| control(ControlRequest::DbPushConfirm(db))),
            of_each(&|db| control(ControlRequest::DbTransactionCommit(TransDb { db, tid }))),
            of_each(&|db| control(ControlRequest::DbThaw(db))),
            vec![
                control(ControlRequest::SetRecMode(RecMode::Normal)),
                control(ControlRequest::EndRecovery),
            ],
        ]
        .concat()
    }

    /// What it brings: one record that names the recovery.
    fn batch(self, db: DbId, generation: u32) -> Vec<u8> {
        let header = RecordHeader {
            rsn: Rsn(u64::from(generation)),
            dmaster: pnn(self.0).into(),
            flags: RecordFlags::MIGRATED_WITH_DATA,
        };
        let mut batch = RecBufferBuilder::new(db);
        batch.push_with_header(0, KEY, &header, generation.to_string().as_bytes());
        batch.into_bytes()
    }

    /// Sends one step to `node`; its answer must come at once.
    pub(crate) fn send(self, cluster: &mut Cluster, node: usize, step: &Step) -> ControlAnswer {
        match step {
            Step::Control(control) => self.control(cluster, node, control),
            Step::Message(srvid, data) => {
                cluster.message(node, *srvid, data.clone());
                ControlAnswer::default()
            }
        }
    }

    /// Sends a control and returns its answer, which must come at once.
    pub(crate) fn control(
        self,
        cluster: &mut Cluster,
        node: usize,
        control: &ControlRequest<'_>,
    ) -> ControlAnswer {
        cluster.control_from(node, Origin::Node(pnn(self.0), HELPER), control)
    }

    /// Sends all steps; every answer must be a success.
    pub(crate) fn send_all(self, cluster: &mut Cluster, node: usize, steps: &[Step]) {
        for step in steps {
            let answer = self.send(cluster, node, step);
            assert_eq!((answer.status, answer.error.as_str()), (0, ""), "{step:?}");
        }
    }

    /// Recovers `node`.
    pub(crate) fn recover(
        self,
        cluster: &mut Cluster,
        node: usize,
        generation: u32,
        members: &[usize],
    ) {
        let steps = self.recovery(cluster, node, generation, members);
        self.send_all(cluster, node, &steps);
    }

    /// Its broadcast.
    pub(crate) fn beat(self, cluster: &mut Cluster, node: usize) {
        cluster.message(node, Srvid::LEADER, pnn(self.0).get().to_le_bytes().to_vec());
    }

    /// Lets `seconds` pass, with its broadcast in each.
    pub(crate) fn lead(self, cluster: &mut Cluster, node: usize, seconds: u64) {
        for _ in 0..seconds {
            self.beat(cluster, node);
            cluster.advance_ms(1_000);
        }
    }
}

/// Somebody's word that an election has begun.
pub(crate) fn election_called(cluster: &mut Cluster, node: usize) {
    let nobody = Destination::Unknown.to_raw();
    cluster.message(node, Srvid::LEADER, nobody.to_le_bytes().to_vec());
}
