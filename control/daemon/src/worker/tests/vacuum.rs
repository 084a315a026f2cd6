use ringmaster_control::node::world::VacuumStep;

use super::*;

/// The `number`th key of an lmaster in a map of two nodes.
fn key_of(lmaster: u32, number: usize) -> Vec<u8> {
    (0_u32..)
        .map(|number| format!("key-{number}").into_bytes())
        .filter(|key| ringmaster_protocol::hash::jenkins(key) % 2 == lmaster)
        .nth(number)
        .expect("keys of every lmaster")
}

fn put_with(handle: &mut Handle, key: &[u8], header: RecordHeader, data: &[u8]) {
    let mut locked = handle.lock_key(key, LockKind::Write).unwrap();
    let _done = locked.store_record(key, header, data).unwrap();
}

fn moved(rsn: u64, dmaster: u32) -> RecordHeader {
    RecordHeader { flags: RecordFlags::MIGRATED_WITH_DATA, ..header(rsn, dmaster) }
}

fn scheduled(key: &[u8], rsn: u64) -> Tombstone {
    Tombstone { key: key.into(), header: header(rsn, 0), came_from: None }
}

fn keys_of(buffer: &[u8]) -> Vec<Vec<u8>> {
    RecBuffer::from_bytes(buffer).unwrap().iter().map(|record| record.key.to_vec()).collect()
}

impl Subject {
    fn begin(&mut self, scheduled: Vec<Tombstone>, full: bool) {
        self.done(Job::VacuumBegin { scheduled, full });
    }

    fn step(&mut self) -> VacuumStep {
        match self.run(Job::VacuumStep).1 {
            Outcome::Vacuumed(step) => step,
            other => panic!("{other:?}"),
        }
    }

    /// A whole round: keys to be fetched and to be asked about, and how many have been deleted.
    fn round(&mut self, keys: Vec<Tombstone>, full: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, u32) {
        self.begin(keys, full);
        let (mut fetch, mut delete, mut deleted) = (Vec::new(), Vec::new(), 0);
        loop {
            let step = self.step();
            for (to, list) in step.fetch {
                assert_eq!(to, pnn(1));
                fetch.extend(keys_of(&list));
            }
            delete.extend(step.delete.iter().flat_map(|(_, list)| keys_of(list)));
            deleted += step.deleted;
            if !step.more {
                return (fetch, delete, deleted);
            }
        }
    }
}

#[test]
fn a_round_deletes_what_nobody_else_had_and_names_what_others_have_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let [gone, asked, data, again, away, absent] = [0, 1, 2, 3, 4, 5].map(|n| key_of(0, n));
    let theirs = key_of(1, 0);
    put(&mut subject.handle, &gone, 5, 0, b"");
    put_with(&mut subject.handle, &asked, moved(5, 0), b"");
    put(&mut subject.handle, &data, 5, 0, b"x");
    put(&mut subject.handle, &again, 6, 0, b"");
    put(&mut subject.handle, &away, 5, 1, b"");
    put(&mut subject.handle, &theirs, 5, 0, b"");
    let keys = [&gone, &asked, &data, &again, &away, &absent, &theirs];
    let list = keys.map(|key| scheduled(key, 5)).to_vec();
    let done = subject.round(list, false);
    assert_eq!(done, (vec![theirs.clone()], vec![asked.clone()], 1));
    assert_eq!(subject.get(&gone), None);
    for key in [&asked, &data, &again, &away, &theirs] {
        assert!(subject.get(key).is_some(), "{}", String::from_utf8_lossy(key));
    }
    // A full round finds the empty ones by itself.
    let (fetch, delete, deleted) = subject.round(Vec::new(), true);
    assert_eq!((fetch, delete, deleted), (vec![theirs], vec![asked], 1));
    assert_eq!(subject.get(&again), None);
    assert!(subject.get(&data).is_some() && subject.get(&away).is_some());
}

#[test]
fn records_that_came_from_different_nodes_are_asked_about_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let keys = [0, 1, 2].map(|n| key_of(0, n));
    let origins = [None, Some(pnn(1)), Some(pnn(2))];
    let mut list = Vec::new();
    for (key, came_from) in keys.iter().zip(origins) {
        put_with(&mut subject.handle, key, moved(5, 0), b"");
        list.push(Tombstone { came_from, ..scheduled(key, 5) });
    }
    subject.begin(list, false);
    let lists = subject.step().delete.into_iter().map(|(last, list)| (last, keys_of(&list)));
    let wanted = origins.into_iter().zip(keys.map(|key| vec![key]));
    assert_eq!(lists.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
}

#[test]
fn a_node_that_is_alone_is_everybodys_lmaster() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    subject.worker.set_lmasters([pnn(0)].into());
    let keys = [key_of(0, 0), key_of(1, 0)];
    for key in &keys {
        put(&mut subject.handle, key, 5, 0, b"");
    }
    assert_eq!(subject.round(Vec::new(), true), (vec![], vec![], 2));
}

#[test]
fn what_everybody_has_agreed_to_goes_unless_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let [gone, changed, busy] = [0, 1, 2].map(|n| key_of(0, n));
    let theirs = key_of(1, 0);
    for key in [&gone, &changed, &busy, &theirs] {
        put_with(&mut subject.handle, key, moved(5, 0), b"");
    }
    put_with(&mut subject.handle, &changed, moved(5, 0), b"filled again");
    let chain = subject.handle.database().chain_of(&busy);
    subject.handle.lock_chain(chain, LockKind::Write).unwrap().keep();
    let list = [&gone, &changed, &busy, &theirs].map(|key| (&key[..], 5, 0, &b""[..]));
    assert_eq!(subject.run(Job::VacuumDelete(batch(&list))).1, Outcome::Count(1));
    subject.handle.unlock_chain(chain).unwrap();
    assert_eq!(subject.get(&gone), None);
    for key in [&changed, &busy, &theirs] {
        assert!(subject.get(key).is_some(), "{}", String::from_utf8_lossy(key));
    }
}

#[test]
fn a_crowd_is_looked_at_in_steps_and_a_freeze_ends_the_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let keys: Vec<Tombstone> = (0..2_500_u32).map(|n| scheduled(&n.to_le_bytes(), 5)).collect();
    for found in &keys {
        put(&mut subject.handle, &found.key, 5, 0, b"");
    }
    subject.begin(keys.clone(), false);
    let step = subject.step();
    assert!(step.more);
    let seen: usize = step.fetch.iter().map(|(_, list)| keys_of(list).len()).sum();
    assert_eq!(seen + step.deleted as usize, 1_000);
    subject.done(Job::Freeze);
    assert!(matches!(subject.run(Job::VacuumStep).1, Outcome::Failed(_)));
    let begin = Job::VacuumBegin { scheduled: keys, full: false };
    assert!(matches!(subject.run(begin).1, Outcome::Failed(_)));
    subject.done(Job::Thaw);
    assert!(matches!(subject.run(Job::VacuumStep).1, Outcome::Failed(_)), "it is over");
}

#[test]
fn a_busy_chain_is_left_to_a_later_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let busy = key_of(0, 0);
    put(&mut subject.handle, &busy, 5, 0, b"");
    let chain = subject.handle.database().chain_of(&busy);
    subject.handle.lock_chain(chain, LockKind::Write).unwrap().keep();
    assert_eq!(subject.round(vec![scheduled(&busy, 5)], true), (vec![], vec![], 0));
    subject.handle.unlock_chain(chain).unwrap();
    assert_eq!(subject.round(Vec::new(), true).2, 1);
}

#[test]
fn free_blocks_are_merged_when_c_would_repack_and_the_file_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let key = |number: u32| number.to_le_bytes();
    for number in 0..4_000 {
        put(&mut subject.handle, &key(number), 5, 0, &[7; 200]);
    }
    // Every other one first, so that most become free beside a record that is still there.
    for number in (0..4_000).step_by(2).chain((1..4_000).step_by(2)) {
        subject.handle.delete(&key(number)).unwrap();
    }
    let long = subject.handle.freelist_len().unwrap();
    assert!(long > 10, "{long}");
    assert_eq!(subject.run(Job::MergeFreeBlocks(0)).1, Outcome::Count(0));
    assert_eq!(subject.run(Job::MergeFreeBlocks(long + 1)).1, Outcome::Count(0));
    assert_eq!(subject.handle.freelist_len().unwrap(), long);
    let Outcome::Count(merged) = subject.run(Job::MergeFreeBlocks(1)).1 else { panic!() };
    assert!(merged > 0);
    assert_eq!(subject.handle.freelist_len().unwrap(), long - merged);
    subject.done(Job::Check);
}

#[test]
fn only_records_that_are_nobodys_here_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let (ours, theirs) = (key_of(0, 0), key_of(1, 0));
    for (key, rsn, dmaster, asked, kept) in [
        (&theirs, 5, 1, 5, 0), // a copy of another node's tombstone
        (&theirs, 6, 1, 5, 1), // newer than what was asked
        (&theirs, 5, 0, 5, 1), // this node is dmaster
        (&ours, 5, 1, 5, 1),   // this node is lmaster
    ] {
        put(&mut subject.handle, key, rsn, dmaster, b"");
        let outcome = subject.run(Job::TryDelete(batch(&[(key, asked, 1, b"")]))).1;
        let Outcome::Bytes(buffer) = outcome else { panic!("{outcome:?}") };
        assert_eq!(RecBuffer::from_bytes(&buffer).unwrap().count(), kept);
        assert_eq!(subject.get(key).is_some(), kept == 1);
        subject.handle.delete(key).unwrap();
    }
    let absent = subject.run(Job::TryDelete(batch(&[(&theirs, 1, 1, b"")]))).1;
    assert!(matches!(absent, Outcome::Bytes(buffer) if buffer.len() == 8));
    let short = RecData { reqid: 0, key: b"k", data: b"short" };
    let mut builder = RecBufferBuilder::new(DB);
    builder.push(&short);
    assert!(matches!(subject.run(Job::TryDelete(builder.into_bytes())).1, Outcome::Failed(_)));
    subject.done(Job::Freeze);
    let frozen = Job::TryDelete(batch(&[(&theirs, 1, 1, b"")]));
    assert!(matches!(subject.run(frozen).1, Outcome::Failed(_)), "they are a recovery's now");
}
