//! A database in memory that remembers how it was written, so that every crash can be replayed.
//!
//! Role: the store behind crash tests and behind databases that never touch a disk. It keeps the
//! writes, growths and finished syncs in order; [`CrashLog`] turns them into the files a machine
//! could find after losing power, or a process leave behind after `kill -9`.
//! Invariants
//! - Deterministic: no clock and no randomness here. Whoever wants random images passes a chooser.
//! - A sync counts only when the caller reports it done ([`MemoryStore::synced`]), as on a disk: a
//!   [`SyncPoint`] that was returned and forgotten makes nothing durable.
//! - After power loss each granule (sector) holds what it held at the last sync or after any write
//!   since; granules are independent, so writes are lost, torn and reordered. The file's length is
//!   one more such granule.
//! - `kill -9` loses nothing that was written and may cut the last copy into the mapping anywhere.
//!
//! Origin: `docs/spec/tdb-format.md` 7.2, 7.5.

use std::cell::RefCell;
use std::io;

use crate::store::{Store, StoreError, SyncPoint};

/// One thing that happened to the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Logical offset of the first byte.
        offset: u32,
        /// The bytes.
        data: Vec<u8>,
    },
    /// The file became longer; the new bytes read as zero.
    Grow {
        /// New logical length.
        new_len: u32,
    },
    /// The caller finished a sync: everything before is durable.
    Synced,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    log: Option<CrashLog>,
    fails_in: Option<u64>,
    full: bool,
    sync: bool,
}

/// A [`Store`] in memory. See the module's description.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: RefCell<Inner>,
}

impl MemoryStore {
    /// A store that holds `image` (at most 4 GiB − 1 bytes; what lies beyond is cut off) and asks
    /// for no syncs until [`MemoryStore::start_log`].
    pub fn new(mut image: Vec<u8>) -> Self {
        image.truncate(u32::MAX as usize);
        Self { inner: RefCell::new(Inner { bytes: image, ..Inner::default() }) }
    }

    /// A copy of the bytes as they are now.
    pub fn image(&self) -> Vec<u8> {
        self.inner.borrow().bytes.clone()
    }

    /// From now on remembers what happens; what is there already counts as durable. Sync points
    /// are handed out from here on.
    pub fn start_log(&self) {
        let mut inner = self.inner.borrow_mut();
        let base = inner.bytes.clone();
        inner.log = Some(CrashLog { base, events: Vec::new() });
        inner.sync = true;
    }

    /// What happened since [`MemoryStore::start_log`]; `None` without one.
    pub fn log(&self) -> Option<CrashLog> {
        self.inner.borrow().log.clone()
    }

    /// The caller carried out the sync it was told to.
    pub fn synced(&self, _point: SyncPoint) {
        if let Some(log) = &mut self.inner.borrow_mut().log {
            log.events.push(Event::Synced);
        }
    }

    /// The write or growth after `survivors` more of them fails, and every later one, until
    /// [`MemoryStore::heal`].
    pub fn fail_after(&self, survivors: u64) {
        self.inner.borrow_mut().fails_in = Some(survivors);
    }

    /// The disk is full: every growth fails, until [`MemoryStore::heal`].
    pub fn fill_up(&self) {
        self.inner.borrow_mut().full = true;
    }

    /// Writes and growths succeed again.
    pub fn heal(&self) {
        let mut inner = self.inner.borrow_mut();
        (inner.fails_in, inner.full) = (None, false);
    }
}

impl Inner {
    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn range(&self, offset: u32, len: usize) -> Result<std::ops::Range<usize>, StoreError> {
        let start = offset as usize;
        match start.checked_add(len) {
            Some(end) if end <= self.bytes.len() => Ok(start..end),
            _ => Err(StoreError::OutOfBounds { offset, len, file_len: self.bytes.len() as u64 }),
        }
    }

    /// Counts one write or growth; `Err` when it is to fail.
    fn count_write(&mut self) -> Result<(), io::Error> {
        match &mut self.fails_in {
            None => Ok(()),
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl Store for MemoryStore {
    fn known_len(&self) -> u32 {
        self.inner.borrow().len()
    }

    fn refresh_len(&self) -> Result<u32, StoreError> {
        Ok(self.known_len())
    }

    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        let inner = self.inner.borrow();
        let range = inner.range(offset, buf.len())?;
        buf.copy_from_slice(&inner.bytes[range]);
        Ok(())
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let range = inner.range(offset, data.len())?;
        inner.count_write().map_err(|source| StoreError::Io { action: "write", offset, source })?;
        inner.bytes[range].copy_from_slice(data);
        if let Some(log) = &mut inner.log {
            log.events.push(Event::Write { offset, data: data.to_vec() });
        }
        Ok(())
    }

    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let wanted = u64::from(old_len) + u64::from(added);
        let Ok(new_len) = u32::try_from(wanted) else {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(StoreError::Grow { wanted, source });
        };
        inner.count_write().map_err(|source| StoreError::Grow { wanted, source })?;
        if inner.full {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreError::Grow { wanted, source });
        }
        if new_len as usize > inner.bytes.len() {
            inner.bytes.resize(new_len as usize, 0);
            if let Some(log) = &mut inner.log {
                log.events.push(Event::Grow { new_len });
            }
        }
        Ok(())
    }

    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint> {
        self.inner.borrow().sync.then_some(SyncPoint { offset, len })
    }
}

/// What happened to a [`MemoryStore`], and the files that crashes during it can leave.
#[derive(Clone, Debug)]
pub struct CrashLog {
    base: Vec<u8>,
    events: Vec<Event>,
}

impl CrashLog {
    /// Everything that happened, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The file after the first `count` events: what a process killed there leaves behind.
    pub fn after(&self, count: usize) -> Vec<u8> {
        let mut image = self.base.clone();
        for event in &self.events[..count] {
            apply(&mut image, event, usize::MAX);
        }
        image
    }

    /// As [`CrashLog::after`], and of event `count` only the first `written` bytes arrived.
    pub fn after_torn(&self, count: usize, written: usize) -> Vec<u8> {
        let mut image = self.after(count);
        if let Some(event @ Event::Write { .. }) = self.events.get(count) {
            apply(&mut image, event, written);
        }
        image
    }

    /// The file after losing power when `count` events had happened. For each granule of
    /// `granule` bytes touched since the last sync `choose(n)` picks which of its `n` versions the
    /// disk holds (0: the durable one, `n - 1`: the newest), and likewise for the length.
    pub fn power_loss(
        &self,
        count: usize,
        granule: usize,
        mut choose: impl FnMut(usize) -> usize,
    ) -> Vec<u8> {
        let granule = granule.max(1);
        let synced = self.events[..count].iter().rposition(|event| *event == Event::Synced);
        let durable_count = synced.map_or(0, |index| index + 1);
        let mut image = self.after(durable_count);
        let mut lengths = vec![image.len()];
        // Versions of every touched granule, oldest first; filled by replaying the volatile writes.
        let mut versions: std::collections::BTreeMap<usize, Vec<Vec<u8>>> = Default::default();
        let mut newest = image.clone();
        for event in &self.events[durable_count..count] {
            let before_len = newest.len();
            if let Event::Write { offset, data } = event {
                let first = *offset as usize / granule;
                let last = (*offset as usize + data.len().max(1) - 1) / granule;
                for index in first..=last {
                    versions.entry(index).or_insert_with(|| vec![cut(&newest, index, granule)]);
                }
                apply(&mut newest, event, usize::MAX);
                for index in first..=last {
                    let now = cut(&newest, index, granule);
                    let known = versions.entry(index).or_default();
                    if known.last() != Some(&now) {
                        known.push(now);
                    }
                }
            } else {
                apply(&mut newest, event, usize::MAX);
                if newest.len() != before_len {
                    lengths.push(newest.len());
                }
            }
        }
        image.resize(newest.len(), 0);
        for (index, versions) in &versions {
            let version = &versions[choose(versions.len()).min(versions.len() - 1)];
            let start = index * granule;
            image[start..start + version.len()].copy_from_slice(version);
        }
        image.truncate(lengths[choose(lengths.len()).min(lengths.len() - 1)]);
        image
    }
}

fn cut(image: &[u8], index: usize, granule: usize) -> Vec<u8> {
    let start = (index * granule).min(image.len());
    let end = (start + granule).min(image.len());
    image[start..end].to_vec()
}

fn apply(image: &mut Vec<u8>, event: &Event, at_most: usize) {
    match event {
        Event::Write { offset, data } => {
            let take = data.len().min(at_most);
            let start = *offset as usize;
            image[start..start + take].copy_from_slice(&data[..take]);
        }
        Event::Grow { new_len } => image.resize(*new_len as usize, 0),
        Event::Synced => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> MemoryStore {
        let store = MemoryStore::new(vec![0; 16]);
        store.start_log();
        store
    }

    #[test]
    fn reads_and_writes_outside_the_file_are_errors() {
        let store = store();
        let mut word = [0; 4];
        assert!(matches!(
            store.read(13, &mut word),
            Err(StoreError::OutOfBounds { offset: 13, len: 4, file_len: 16 })
        ));
        assert!(store.write(u32::MAX, b"x").is_err());
        assert!(store.read(16, &mut []).is_ok());
    }

    #[test]
    fn growth_reads_as_zero_and_ends_at_four_gigabytes() {
        let store = store();
        store.grow(16, 4).unwrap();
        assert_eq!(store.read_u32(16).unwrap(), 0);
        assert!(matches!(store.grow(20, u32::MAX), Err(StoreError::Grow { .. })));
        assert_eq!(store.known_len(), 20);
    }

    #[test]
    fn the_chosen_write_fails_and_leaves_the_bytes_alone() {
        let store = store();
        store.fail_after(1);
        store.write(0, b"ab").unwrap();
        assert!(store.write(0, b"cd").is_err());
        assert!(store.grow(16, 4).is_err());
        store.heal();
        store.write(2, b"ef").unwrap();
        assert_eq!(&store.image()[..4], b"abef");
    }

    #[test]
    fn killed_process_leaves_a_prefix_of_its_writes() {
        let store = store();
        store.write(0, b"abcd").unwrap();
        store.write(2, b"XYZ").unwrap();
        let log = store.log().unwrap();
        assert_eq!(&log.after(0)[..5], &[0; 5]);
        assert_eq!(&log.after(1)[..5], b"abcd\0");
        assert_eq!(&log.after_torn(1, 1)[..5], b"abXd\0");
        assert_eq!(&log.after(2)[..5], b"abXYZ");
    }

    #[test]
    fn power_loss_keeps_what_was_synced_and_any_version_of_the_rest() {
        let store = store();
        store.write(0, b"11").unwrap();
        let point = store.sync_point(0, 16).unwrap();
        store.synced(point);
        store.write(0, b"22").unwrap();
        store.write(1, b"3333").unwrap(); // touches granules 0 and 1 of four bytes
        let log = store.log().unwrap();
        let all = log.events().len();
        let image = |pick: &[usize]| {
            let mut pick = pick.iter();
            log.power_loss(all, 4, |_| *pick.next().unwrap())
        };
        assert_eq!(&image(&[0, 0, 0])[..6], b"11\0\0\0\0");
        assert_eq!(&image(&[1, 0, 0])[..6], b"22\0\0\0\0");
        assert_eq!(
            &image(&[0, 1, 0])[..6],
            b"11\0\x003\0",
            "the older write is lost, not the newer"
        );
        assert_eq!(&image(&[2, 1, 0])[..6], b"23333\0");
    }

    #[test]
    fn unsynced_growth_can_be_lost_with_what_was_written_behind_it() {
        let store = store();
        store.grow(16, 16).unwrap();
        store.write(20, b"tail").unwrap();
        let log = store.log().unwrap();
        assert_eq!(log.power_loss(2, 4, |_| 0), vec![0; 16]);
        let kept = log.power_loss(2, 4, |n| n - 1);
        assert_eq!((kept.len(), &kept[20..24]), (32, &b"tail"[..]));
    }

    #[test]
    fn a_sync_point_that_nobody_carried_out_makes_nothing_durable() {
        let store = store();
        store.write(0, b"x").unwrap();
        let _ignored = store.sync_point(0, 16);
        store.write(8, b"y").unwrap();
        let log = store.log().unwrap();
        assert_eq!(log.power_loss(log.events().len(), 4, |_| 0), vec![0; 16]);
    }
}
