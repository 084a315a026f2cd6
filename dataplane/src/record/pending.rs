//! Calls under way in the cluster, and the request ids that name them.
//!
//! Invariants
//! - A request id carries the shard, the place in the table and how often the place has been used:
//!   a late reply finds nothing, and a reply finds its shard.
//! - Ids are positive 31-bit numbers, as C's are, and never 0.

use ringmaster_protocol::{
    DbId, Reqid,
    call::{CallFlags, CallId},
};

use super::{ClientId, Micros, Work};

/// On whose behalf the cluster is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A local client, who called it so.
    Client { client: ClientId, reqid: Reqid },
    /// This node as lmaster, which wants to delete the record.
    Vacuum,
}

impl Asker {
    pub(super) fn is(self, client: ClientId) -> bool {
        matches!(self, Self::Client { client: known, .. } if known == client)
    }
}

/// A call that another node has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingCall {
    pub(super) asker: Asker,
    pub(super) db: DbId,
    pub(super) flags: CallFlags,
    /// What is asked of the cluster; may be more than the client asked for.
    pub(super) callid: CallId,
    /// The client asked for the data alone and gets the header cut off.
    pub(super) strip_header: bool,
    pub(super) hopcount: u32,
    pub(super) key: Box<[u8]>,
    pub(super) calldata: Box<[u8]>,
    pub(super) started: Micros,
}

impl PendingCall {
    /// The call as a packet to be processed again.
    pub(super) fn work(&self) -> Work {
        Work::Call {
            flags: self.flags,
            db: self.db,
            callid: self.callid,
            hopcount: self.hopcount,
            key: self.key.clone(),
            calldata: self.calldata.clone(),
        }
    }
}

const PLACE_BITS: u32 = 18;
const REUSE_BITS: u32 = 8;
const SHARD_BITS: u32 = 5;
const _: () = assert!(PLACE_BITS + REUSE_BITS + SHARD_BITS == 31);

/// Requests that wait for an answer, by request id. At most 262,143 at a time per shard.
#[derive(Debug)]
pub struct ReqidTable<T> {
    shard: u32,
    places: Vec<Place<T>>,
    free: std::collections::VecDeque<u32>,
}

#[derive(Debug)]
struct Place<T> {
    reuse: u32,
    value: Option<T>,
}

impl<T> ReqidTable<T> {
    /// Largest number of requests under way.
    pub const MAX: usize = (1 << PLACE_BITS) - 1;

    /// An empty table whose ids carry `shard` (0 to 31).
    ///
    /// # Panics
    /// For a shard number that does not fit.
    #[must_use]
    pub fn new(shard: u8) -> Self {
        assert!(u32::from(shard) < 1 << SHARD_BITS, "shard numbers have {SHARD_BITS} bits");
        Self {
            shard: u32::from(shard),
            places: Vec::new(),
            free: std::collections::VecDeque::new(),
        }
    }

    /// The shard that a request id belongs to.
    #[must_use]
    pub const fn shard_of(reqid: Reqid) -> u8 {
        (reqid.0 >> (PLACE_BITS + REUSE_BITS)) as u8 & ((1 << SHARD_BITS) - 1)
    }

    /// Keeps `value` under a new id; gives it back when the table is full.
    ///
    /// # Errors
    /// The value itself: the caller has to stop taking requests before it comes to that.
    pub fn insert(&mut self, value: T) -> Result<Reqid, T> {
        // The oldest free place, so that ids are reused as late as possible.
        let place = match self.free.pop_front() {
            Some(place) => {
                self.places[place as usize].value = Some(value);
                place
            }
            None if self.places.len() < Self::MAX => {
                self.places.push(Place { reuse: 0, value: Some(value) });
                u32::try_from(self.places.len() - 1).expect("fewer places than 2^18")
            }
            None => return Err(value),
        };
        Ok(self.id(place))
    }

    fn id(&self, place: u32) -> Reqid {
        let reuse = self.places[place as usize].reuse & ((1 << REUSE_BITS) - 1);
        // Place 0 is written as 1, so that no id is ever 0.
        Reqid((self.shard << (PLACE_BITS + REUSE_BITS)) | (reuse << PLACE_BITS) | (place + 1))
    }

    fn place(&self, reqid: Reqid) -> Option<u32> {
        let place = (reqid.0 & ((1 << PLACE_BITS) - 1)).checked_sub(1)?;
        let known = self.places.get(place as usize)?;
        (known.value.is_some() && self.id(place) == reqid).then_some(place)
    }

    /// The request of that name, if it is still under way.
    #[must_use]
    pub fn get(&self, reqid: Reqid) -> Option<&T> {
        self.places[self.place(reqid)? as usize].value.as_ref()
    }

    /// Ends a request.
    pub fn remove(&mut self, reqid: Reqid) -> Option<T> {
        let place = self.place(reqid)?;
        self.take(place)
    }

    fn take(&mut self, place: u32) -> Option<T> {
        let known = &mut self.places[place as usize];
        known.reuse = known.reuse.wrapping_add(1);
        self.free.push_back(place);
        known.value.take()
    }

    /// Ends the requests for which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for place in 0..u32::try_from(self.places.len()).unwrap_or(u32::MAX) {
            let known = &self.places[place as usize];
            if known.value.as_ref().is_some_and(|value| !keep(value)) {
                self.take(place);
            }
        }
    }

    /// Gives the wanted requests new ids, in the order of their places: answers to the old ones
    /// find nothing.
    pub fn replace_ids(
        &mut self,
        mut wanted: impl FnMut(&T) -> bool,
        mut replaced: impl FnMut(Reqid, &T),
    ) {
        for place in 0..u32::try_from(self.places.len()).unwrap_or(u32::MAX) {
            let known = &mut self.places[place as usize];
            if known.value.as_ref().is_some_and(&mut wanted) {
                known.reuse = known.reuse.wrapping_add(1);
                let id = self.id(place);
                if let Some(value) = &self.places[place as usize].value {
                    replaced(id, value);
                }
            }
        }
    }

    /// Requests under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_finds_nothing() {
        let mut table = ReqidTable::new(3);
        let first = table.insert('a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(ReqidTable::<char>::shard_of(second), 3);
    }

    #[test]
    fn ids_are_positive_and_not_zero() {
        let mut table = ReqidTable::new(31);
        for number in 0..1_000 {
            let id = table.insert(number).unwrap();
            assert!(id.0 != 0 && id.0 < 0x8000_0000);
        }
        assert_eq!(ReqidTable::new(0).insert(()).unwrap(), Reqid(1));
    }

    #[test]
    fn a_full_table_gives_the_request_back() {
        let mut table = ReqidTable::new(0);
        for number in 0..ReqidTable::<usize>::MAX {
            table.insert(number).unwrap();
        }
        assert_eq!(table.insert(7), Err(7));
        assert_eq!(table.len(), ReqidTable::<usize>::MAX);
    }

    #[test]
    fn replaced_ids_void_the_old_ones() {
        let mut table = ReqidTable::new(0);
        let (a, b) = (table.insert(1).unwrap(), table.insert(2).unwrap());
        let mut seen = Vec::new();
        table.replace_ids(|value| *value == 2, |id, value| seen.push((id, *value)));
        assert_eq!(table.get(a), Some(&1));
        assert_eq!(table.get(b), None);
        let [(new, 2)] = seen[..] else { panic!("one request has a new id: {seen:?}") };
        assert_eq!(table.remove(new), Some(2));
    }
}
