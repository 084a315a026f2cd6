//! The whole life of a record, packet by packet and header by header, with every node in every part
//! of it.
//!
//! Origin: `docs/spec/cluster-semantics.md` A.10.

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_compat::cluster::Network;
use ringmaster_follow::PATIENCE;
use ringmaster_follow::life::{Life, pnn};
use ringmaster_follow::overheard::{Subject, header, lines, value};
use ringmaster_follow::steps::{key_at, lmasters};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::database::DbVacuum;

super::lives!(|config| config.network(Network::Relay).tunable("VacuumInterval", 100_000), story);

/// A: reads and deletes. L: location master. D: has the record first. Nodes of each part.
type Cast = [usize; 3];

const CASTS: [Cast; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// A record on the stage.
struct Stage<'l> {
    life: &'l Life,
    at: Vec<(Client, Database)>,
    cast: Cast,
    names: Vec<char>,
    key: Vec<u8>,
}

fn story(life: &Life) -> Result<()> {
    for cast in CASTS {
        let [a, l, d] = cast;
        for (name, part) in [
            ("with data", with_data as fn(&mut Stage<'_>) -> Result<()>),
            ("never with data", never_with_data),
            ("read-only", readonly),
        ] {
            let done = Stage::enter(life, cast, name).and_then(|mut stage| part(&mut stage));
            done.with_context(|| format!("{name}: A is node {a}, L {l}, D {d}"))?;
        }
    }
    Ok(())
}

impl<'l> Stage<'l> {
    fn enter(life: &'l Life, cast: Cast, name: &str) -> Result<Self> {
        let [a, l, d] = cast;
        let database = format!("{}.tdb", name.replace(' ', "-"));
        let mut at = Vec::new();
        for node in life.nodes() {
            at.push(life.open(node, &database, DbKind::Volatile)?);
        }
        let mut names = vec!['?'; 3];
        (names[a], names[l], names[d]) = ('A', 'L', 'D');
        let key = key_at(&lmasters(life, 0)?, l, &format!("record of {a} {l} {d},"));
        let stage = Self { life, at, cast, names, key };
        stage.packets()?;
        Ok(stage)
    }

    /// What was said about the record since the last look.
    fn packets(&self) -> Result<Vec<String>> {
        let relay = self.life.cluster.relay().context("a relay was asked for")?;
        let subject = Subject { db: self.at[0].1.id(), key: &self.key, names: &self.names };
        lines(&relay.take()?, &subject)
    }

    /// Headers and values in the files of A, L and D.
    fn stored(&mut self) -> Result<[String; 3]> {
        let mut stored = [const { String::new() }; 3];
        for (part, node) in self.cast.into_iter().enumerate() {
            let record = self.at[node].1.fetch_local(&self.key, PATIENCE)?;
            stored[part] = record.map_or_else(
                || "none".to_owned(),
                |(head, data)| format!("{} {}", header(&head, &self.names), value(&data)),
            );
        }
        Ok(stored)
    }

    /// After a step: exactly these packets, and these records with A, L and D.
    fn expect(&mut self, step: &str, packets: &[&str], records: [&str; 3]) -> Result<()> {
        let mut stored = self.stored()?;
        let settled = self.life.wait("the records of a step", || {
            stored = self.stored().ok()?;
            (stored == records).then_some(())
        });
        let said = self.packets()?;
        let problem = || {
            format!(
                "{step}: expected records {records:#?} and packets {packets:#?}\n\
                 found records {stored:#?} and packets {said:#?}"
            )
        };
        settled.with_context(problem)?;
        ensure!(said == packets, problem());
        Ok(())
    }

    fn lock_and(
        &mut self,
        node: usize,
        change: impl FnOnce(&mut Client, ringmaster_client::LockedRecord<'_>) -> Result<()>,
    ) -> Result<()> {
        let (client, database) = &mut self.at[node];
        let record = client.lock_record(database, &self.key)?;
        change(client, record)
    }

    fn store(&mut self, node: usize, value: &[u8]) -> Result<()> {
        self.lock_and(node, |_, mut record| {
            record.store(value)?;
            Ok(record.unlock()?)
        })
    }

    fn touch(&mut self, node: usize) -> Result<()> {
        self.lock_and(node, |_, record| Ok(record.unlock()?))
    }

    /// A vacuum run on A asks L to take the record, and the next one on L takes it. Ours takes it when
    /// it is asked: the same packets, but for what comes before the answer.
    fn fetched_for_vacuum(
        &mut self,
        steps: [&str; 2],
        moved: &str,
        asked: [&str; 3],
        taken: [&str; 3],
    ) -> Result<()> {
        const FETCH: &str = "A>L VACUUM_FETCH";
        const ANSWER: &str = "L>A answers VACUUM_FETCH 0, 0 records";
        const CALL: &str = "L>A REQ_CALL q1 of L, flags 3, hop 0";
        let [a, l, _] = self.cast;
        self.vacuum(a)?;
        if !self.life.composition.is_ours(l) {
            self.expect(steps[0], &[FETCH, ANSWER], asked)?;
            self.vacuum(l)?;
            return self.expect(steps[1], &[CALL, moved], taken);
        }
        self.life.wait("the records of a step", || (self.stored().ok()? == taken).then_some(()))?;
        let mut said = self.packets()?;
        let answer = said.iter().position(|line| line == ANSWER);
        let answer = answer.with_context(|| format!("no answer in {said:#?}"))?;
        said.remove(answer);
        ensure!(said == [FETCH, CALL, moved], "{}: {said:#?}", steps[1]);
        Ok(())
    }

    fn vacuum(&mut self, node: usize) -> Result<()> {
        let (client, database) = &mut self.at[node];
        let request = DbVacuum { db: database.id(), full_vacuum_run: false };
        let to = client.own_node();
        Ok(client.control::<kinds::DbVacuum>(to, &request)?)
    }
}

fn with_data(stage: &mut Stage<'_>) -> Result<()> {
    let [a, l, d] = stage.cast;
    stage.store(d, b"v1")?;
    stage.expect(
        "1 to 3",
        &["D>L REQ_CALL q1 of D, flags 1, hop 0", "L>D REPLY_DMASTER q1, rsn 1, -, flags 0"],
        ["none", "{1,D,0} -", "{3,D,0} v1"],
    )?;
    stage.touch(a)?;
    stage.expect(
        "4 to 8",
        &[
            "A>L REQ_CALL q1 of A, flags 1, hop 0",
            "L>D REQ_CALL q1 of A, flags 1, hop 1",
            "D>L REQ_DMASTER q1 to A, rsn 3, v1, flags m",
            "L>A REPLY_DMASTER q1, rsn 3, v1, flags m",
        ],
        ["{5,A,m} v1", "{3,A,m} v1", "{3,A,m} v1"],
    )?;
    stage.store(a, b"v2")?;
    stage.expect("9", &[], ["{5,A,m} v2", "{3,A,m} v1", "{3,A,m} v1"])?;
    stage.lock_and(a, |client, record| Ok(record.delete(client)?))?;
    stage.expect("10", &[], ["{5,A,m} -", "{3,A,m} v1", "{3,A,m} v1"])?;
    stage.fetched_for_vacuum(
        ["11", "12 to 14"],
        "A>L REQ_DMASTER q1 to L, rsn 5, -, flags m",
        ["{5,A,m} -", "{3,A,m} v1", "{3,A,m} v1"],
        ["{5,L,m} -", "{7,L,m} -", "{3,A,m} v1"],
    )?;
    stage.vacuum(l)?;
    stage.life.wait("the end of the record", || {
        stage.stored().ok()?.iter().all(|record| record == "none").then_some(())
    })?;
    let mut said = stage.packets()?;
    // C asks in the order of node numbers, ours asks who has the newest copy last.
    let first = if said.first().is_some_and(|line| line.starts_with("L>A")) { 'A' } else { 'D' };
    for name in [first, if first == 'A' { 'D' } else { 'A' }] {
        let asked = format!("L>{name} TRY_DELETE_RECORDS {{7,L,m}} -");
        let answered = format!("{name}>L answers TRY_DELETE_RECORDS 0, 0 records");
        ensure!(said.len() >= 2 && said[..2] == [asked, answered], "15 and 16: {said:#?}");
        said.drain(..2);
    }
    ensure!(said.is_empty(), "15 and 16: more was said: {said:#?}");
    Ok(())
}

fn never_with_data(stage: &mut Stage<'_>) -> Result<()> {
    let [a, l, _] = stage.cast;
    stage.touch(a)?;
    stage.expect(
        "A looks for it",
        &["A>L REQ_CALL q1 of A, flags 1, hop 0", "L>A REPLY_DMASTER q1, rsn 1, -, flags 0"],
        ["{3,A,0} -", "{1,A,0} -", "none"],
    )?;
    stage.lock_and(a, |client, record| Ok(record.delete(client)?))?;
    stage.fetched_for_vacuum(
        ["run on A", "first run on L"],
        "A>L REQ_DMASTER q1 to L, rsn 3, -, flags 0",
        ["{3,A,0} -", "{1,A,0} -", "none"],
        ["none", "{4,L,0} -", "none"],
    )?;
    stage.vacuum(l)?;
    stage.expect("second run on L", &[], ["none", "none", "none"])
}

/// The specification's read-only variant: A is its node 0, L its node 1, D its node 2.
fn readonly(stage: &mut Stage<'_>) -> Result<()> {
    let [a, l, d] = stage.cast;
    let nodes: Vec<_> = stage.life.nodes().into_iter().map(pnn).collect();
    let id = stage.at[0].1.id();
    stage.at[0].0.enable_readonly(id, &nodes)?;
    stage.store(a, b"v1")?;
    stage.expect(
        "A has it",
        &["A>L REQ_CALL q1 of A, flags 1, hop 0", "L>A REPLY_DMASTER q1, rsn 1, -, flags 0"],
        ["{3,A,0} v1", "{1,A,0} -", "none"],
    )?;
    let read = |stage: &mut Stage<'_>, node: usize| -> Result<()> {
        let (client, database) = &mut stage.at[node];
        let read = client.fetch_readonly(database, &stage.key)?;
        ensure!(read.as_deref() == Some(&b"v1"[..]), "read {read:?}");
        Ok(())
    };
    // Ours marks what it delegates as moved, so that it is not vacuumed under its copies.
    let m = if stage.life.composition.is_ours(a) { "m+" } else { "" };
    let kept = format!("{{6,A,{m}delegations}} v1");
    let copy = format!("{{4,A,{m}copy}} v1");
    read(stage, d)?;
    stage.expect(
        "D reads",
        &[
            "D>L REQ_CALL q1 of D, flags 4, hop 0",
            "L>A REQ_CALL q1 of D, flags 4, hop 1",
            &format!("A>D REPLY_CALL q1, {copy}"),
        ],
        [&kept, "{1,A,0} -", &copy],
    )?;
    read(stage, l)?;
    stage.expect(
        "L reads",
        &["L>A REQ_CALL q1 of L, flags 4, hop 0", &format!("A>L REPLY_CALL q1, {copy}")],
        [&kept, &copy, &copy],
    )?;
    stage.store(l, b"v2")?;
    let mut said = stage.packets()?;
    let stored = stage.stored()?;
    let expected = ["{8,L,m} v1", "{10,L,m} v2", "{5,A,m} v1"];
    let asked = said.first().is_some_and(|line| line == "L>A REQ_CALL q1 of L, flags 1, hop 0");
    let moved =
        said.last().is_some_and(|line| line == "A>L REQ_DMASTER q1 to L, rsn 8, v1, flags m");
    // Both copies are called back at the same time.
    let mut middle: Vec<_> = said.drain(..).filter(|line| line.contains("UPDATE_RECORD")).collect();
    middle.sort();
    let called_back = [
        "A>D UPDATE_RECORD {5,A,m} v1",
        "A>L UPDATE_RECORD {5,A,m} v1",
        "D>A answers UPDATE_RECORD 0, 0 records",
        "L>A answers UPDATE_RECORD 0, 0 records",
    ];
    ensure!(
        asked && moved && middle == called_back && stored == expected,
        "L writes: {middle:#?} {stored:#?}, asked {asked}, moved {moved}"
    );
    Ok(())
}
