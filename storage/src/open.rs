//! Opening and creating a file while others use it.
//!
//! Role: libtdb's open protocol, step by step: argument checks, OPEN, "am I the first?", creation,
//! header, mutexes, mapping, recovery. What can be done with the result: `handle.rs`.
//! Invariants
//! - A file of another version, hash or feature is refused, never overwritten. Only a file that
//!   does not begin like a database at all is, and only when the caller said "create".
//! - OPEN is held from before the header is read until recovery is done and ACTIVE is held.
//! - Created files equal libtdb's byte for byte.
//!
//! Origin: `docs/spec/tdb-format.md` 3.2 to 3.4, 11.1, 11.2.

mod error;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

pub use error::OpenError;

use crate::backend::file::FileStore;
use crate::flags::Flags;
use crate::format::{
    ByteOrder, DEFAULT_HASH_SIZE, HEADER_LEN, HashKind, Header, HeaderError, Layout, create_image,
};
use crate::handle::{Database, Handle, Owner};
use crate::limits::WAITERS_PER_DATABASE_MAX;
use crate::lock::{FileLocks, HandleLocks, LockError, LockKind, NoLocks, TryLock, Wait};
use crate::map;
use crate::mutex::{self, MutexArea};
use crate::recovery::{Recovery, RecoveryError, needs_recovery};
use crate::store::{Store, StoreError};
use crate::transaction::Step;
use crate::wait::WaitLimit;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Number of chains of a new file; 0 means 131. An existing file decides for itself.
    pub hash_size: u32,
    /// Flags.
    pub flags: Flags,
    /// Open for writing.
    pub write: bool,
    /// Create the file if it is missing (and overwrite one that is no database).
    pub create: bool,
    /// Fail if the file exists.
    pub exclusive: bool,
    /// Permissions of a new file, before the umask.
    pub mode: u32,
}

impl OpenOptions {
    /// Read-only, as inspection tools open: no locks at all.
    #[must_use]
    pub fn read_only() -> Self {
        let flags = Flags::DEFAULT;
        Self { hash_size: 0, flags, write: false, create: false, exclusive: false, mode: 0 }
    }

    /// An existing file, for reading and writing.
    #[must_use]
    pub fn existing(flags: Flags) -> Self {
        Self { flags, write: true, ..Self::read_only() }
    }

    /// For reading and writing, created with mode 0600 if missing.
    #[must_use]
    pub fn create(hash_size: u32, flags: Flags) -> Self {
        Self { hash_size, create: true, mode: 0o600, ..Self::existing(flags) }
    }

    /// Checks the arguments and completes them, before the file is touched.
    fn completed(mut self, path: &Path) -> Result<Self, OpenError> {
        let wrong = |reason| OpenError::Argument { path: path.to_owned(), reason };
        if self.hash_size == 0 {
            self.hash_size = DEFAULT_HASH_SIZE;
        }
        if self.flags.contains(Flags::ALLOW_NESTING | Flags::DISALLOW_NESTING) {
            return Err(wrong("ALLOW_NESTING and DISALLOW_NESTING exclude each other"));
        }
        if self.flags.contains(Flags::INTERNAL) {
            return Err(wrong("INTERNAL databases are no files"));
        }
        if self.flags.contains(Flags::CONVERT) && self.create {
            return Err(wrong("files of the foreign byte order are never written"));
        }
        if !self.flags.contains(Flags::DISALLOW_NESTING) {
            self.flags = self.flags | Flags::ALLOW_NESTING;
        }
        if !self.write {
            let dropped = Flags::CLEAR_IF_FIRST | Flags::MUTEX_LOCKING;
            self.flags = (self.flags | Flags::NOLOCK).without(dropped);
            self.create = false;
        }
        if self.flags.contains(Flags::MUTEX_LOCKING) {
            if self.flags.contains(Flags::NOMMAP) {
                return Err(wrong("MUTEX_LOCKING needs a mapping, NOMMAP forbids it"));
            }
            self.flags = self.flags | Flags::INCOMPATIBLE_HASH;
        }
        Ok(self)
    }
}

/// Page size of this process: unit of growth, and part of the size of a mutex area.
#[must_use]
pub fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(8192)
}

/// Opens a database; more handles for other threads come from [`Database::handle`].
///
/// # Errors
/// [`OpenError`]; the file is as it was, unless creating it was what failed.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Handle, OpenError> {
    let options = options.completed(path)?;
    let file = File::options()
        .read(true)
        .write(options.write)
        .create(options.create && !options.exclusive)
        .create_new(options.create && options.exclusive)
        .mode(options.mode)
        .open(path)
        .map_err(|source| OpenError::System { action: "open", path: path.to_owned(), source })?;
    let wait_limit = WaitLimit::new(WAITERS_PER_DATABASE_MAX);
    let locks = if options.flags.contains(Flags::NOLOCK) {
        Owner::Nobody(NoLocks::default())
    } else {
        let file = Arc::new(own_description(&file, path, options.write)?);
        let locks = HandleLocks::new(file, options.write, 0, None);
        Owner::File(Box::new(locks.with_wait_limit(Arc::clone(&wait_limit))))
    };
    let mut opening = Opening { path, options, file, locks, wait_limit, first: false };
    opening.wait_for(|locks| locks.lock_open(Wait::Yes))?;
    opening.run()
}

/// A second open file description of the same file: locks belong to descriptions, and the one of
/// the store outlives the handle that opened the database.
fn own_description(file: &File, path: &Path, write: bool) -> Result<File, OpenError> {
    reopened(file, write).map_err(|source| OpenError::System {
        action: "open a second time",
        path: path.to_owned(),
        source,
    })
}

/// Opens the file behind a descriptor anew, whatever its name has become.
pub(crate) fn reopened(file: &File, write: bool) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(write).open(path)
}

/// An open in progress. OPEN is held; dropping the locks (their description) gives it back.
struct Opening<'p> {
    path: &'p Path,
    options: OpenOptions,
    file: File,
    locks: Owner,
    wait_limit: Arc<WaitLimit>,
    /// Nobody else has the file open: ACTIVE is held for writing.
    first: bool,
}

impl Opening<'_> {
    fn run(mut self) -> Result<Handle, OpenError> {
        // Under OPEN: whoever writes the first byte holds it too.
        let was_empty = self.file.metadata().map_err(self.system("look at"))?.len() == 0;
        if self.options.flags.contains(Flags::CLEAR_IF_FIRST) {
            self.first = self.try_active()?;
            if self.first {
                self.wait_for(|locks| locks.lock_data_range(Wait::Yes))?;
                self.create()?;
                self.unlock(FileLocks::unlock_data_range)?;
            }
        }
        let header = self.header()?;
        let hash = header.hash_kind().ok_or_else(|| OpenError::UnknownHash {
            path: self.path.to_owned(),
            magic1: header.magic1_hash,
            magic2: header.magic2_hash,
        })?;
        let layout = Layout { hash_size: header.hash_size, hash, page_size: page_size() };
        let area = self.mutexes(&header)?;
        let store = self.map(&header, &layout)?;
        if self.first {
            self.unlock(FileLocks::unlock_active)?;
        }
        // libtdb leaves a plain opener of a mutex file that was not first without ACTIVE: once the
        // others are gone, the next one makes the mutexes new under it (spec 3.3 step 11). Not us.
        if self.options.flags.contains(Flags::CLEAR_IF_FIRST) || area.is_some() {
            self.wait_for(|locks| locks.lock_active(LockKind::Read, Wait::Yes))?;
        }
        self.recover(&store)?;
        self.unlock(FileLocks::unlock_open)?;
        let mut database =
            Database::new(self.path, store, layout, area, &self.options, self.wait_limit);
        database.made_here = was_empty;
        Ok(Handle::first(Arc::new(database), self.locks))
    }

    fn system(&self, action: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        let path = self.path.to_owned();
        move |source| OpenError::System { action, path, source }
    }

    fn lock(
        &mut self,
        request: impl FnOnce(&mut Owner) -> Result<TryLock, LockError>,
    ) -> Result<TryLock, OpenError> {
        request(&mut self.locks)
            .map_err(|source| OpenError::Lock { path: self.path.to_owned(), source })
    }

    /// A request that waits is never answered with "busy".
    fn wait_for(
        &mut self,
        request: impl FnOnce(&mut Owner) -> Result<TryLock, LockError>,
    ) -> Result<(), OpenError> {
        self.lock(request).map(|_granted| ())
    }

    fn unlock(
        &mut self,
        request: impl FnOnce(&mut Owner) -> Result<(), LockError>,
    ) -> Result<(), OpenError> {
        request(&mut self.locks)
            .map_err(|source| OpenError::Lock { path: self.path.to_owned(), source })
    }

    fn try_active(&mut self) -> Result<bool, OpenError> {
        let answer = self.lock(|locks| locks.lock_active(LockKind::Write, Wait::No))?;
        Ok(answer == TryLock::Granted)
    }

    /// Reads the header, creating the database if there is none and the caller wants one.
    fn header(&mut self) -> Result<Header, OpenError> {
        if let Some(header) = self.read_header()? {
            return Ok(header);
        }
        if !self.options.create {
            let len = self.file.metadata().map_err(self.system("stat"))?.len();
            let path = self.path.to_owned();
            return Err(if len < u64::from(HEADER_LEN) {
                OpenError::Short { path, len }
            } else {
                OpenError::Header { path, source: HeaderError::NotTdb }
            });
        }
        self.create()?;
        match self.read_header()? {
            Some(header) => Ok(header),
            None => Err(OpenError::Short { path: self.path.to_owned(), len: 0 }),
        }
    }

    /// `None` for a file that does not begin like a database.
    fn read_header(&self) -> Result<Option<Header>, OpenError> {
        let mut bytes = [0; HEADER_LEN as usize];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(self.system("read")(error)),
        }
        let path = || self.path.to_owned();
        match Header::parse(&bytes) {
            Ok(header) if header.order == ByteOrder::Foreign => {
                Err(OpenError::ForeignOrder { path: path() })
            }
            Ok(header) => Ok(Some(header)),
            Err(HeaderError::NotTdb) => Ok(None),
            Err(source) => Err(OpenError::Header { path: path(), source }),
        }
    }

    /// Empties the file and writes a new database into it.
    fn create(&self) -> Result<(), OpenError> {
        let hash = if self.options.flags.contains(Flags::INCOMPATIBLE_HASH) {
            HashKind::Jenkins
        } else {
            HashKind::Old
        };
        let too_many = || OpenError::Argument {
            path: self.path.to_owned(),
            reason: "so many hash chains do not fit into a file",
        };
        let mutex_size = if self.options.flags.contains(Flags::MUTEX_LOCKING) {
            mutex::area_len(self.options.hash_size, page_size()).ok_or_else(too_many)?
        } else {
            0
        };
        let header = Header::new(self.options.hash_size, hash, mutex_size);
        let image = create_image(&header).ok_or_else(too_many)?;
        self.file.set_len(0).map_err(self.system("empty"))?;
        let written = self.write_new(&header, &image);
        if written.is_err() {
            // A full disk. Half a database must not pass for a whole one: the next opener who may
            // create begins anew.
            let _ = self.file.set_len(0);
        }
        written
    }

    /// Writes a new database into the empty file. The header comes last: should this process be
    /// killed, the next opener who may create begins anew.
    fn write_new(&self, header: &Header, image: &[u8]) -> Result<(), OpenError> {
        let start = u64::from(header.mutex_size);
        let (head, heads) = image.split_at(HEADER_LEN as usize);
        if header.has_mutexes() {
            self.make_room(start + image.len() as u64).map_err(self.system("extend"))?;
            self.map_mutexes(header)?
                .initialise()
                .map_err(|source| OpenError::Mutexes { path: self.path.to_owned(), source })?;
            self.file.write_all_at(head, start).map_err(self.system("create"))?;
        }
        let heads_at = start + u64::from(HEADER_LEN);
        self.file.write_all_at(heads, heads_at).map_err(self.system("create"))?;
        self.file.write_all_at(head, 0).map_err(self.system("create"))
    }

    /// Extends the file without leaving holes: mutexes are written through the mapping, and must
    /// not meet a full disk there.
    fn make_room(&self, len: u64) -> io::Result<()> {
        let all = u32::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        match map::allocate(self.file.as_fd(), 0, all) {
            Err(full) if full.raw_os_error() == Some(libc::ENOSPC) => Err(full),
            // A file system that cannot allocate.
            Err(_) => self.fill_with_zeros(len),
            Ok(()) => Ok(()),
        }
    }

    fn fill_with_zeros(&self, len: u64) -> io::Result<()> {
        const ZEROS: [u8; 8192] = [0; 8192];
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    fn map_mutexes(&self, header: &Header) -> Result<Arc<MutexArea>, OpenError> {
        MutexArea::map(&self.file, header.hash_size, header.mutex_size, page_size())
            .map_err(|source| OpenError::Mutexes { path: self.path.to_owned(), source })
    }

    /// The mutex area, if chains are locked by it. Initialises it if nobody else has the file.
    fn mutexes(&mut self, header: &Header) -> Result<Option<Arc<MutexArea>>, OpenError> {
        if !header.has_mutexes() || !self.options.write {
            return Ok(None);
        }
        let flags = self.options.flags;
        if flags.contains(Flags::NOLOCK) {
            // libtdb would make all mutexes new here, though others hold them (spec 11.2).
            return Ok(None);
        }
        if !flags.contains(Flags::MUTEX_LOCKING) {
            return Err(OpenError::MutexesNeeded { path: self.path.to_owned() });
        }
        let area = self.map_mutexes(header)?;
        if !flags.contains(Flags::CLEAR_IF_FIRST) {
            self.first = self.try_active()?;
            if self.first {
                area.initialise()
                    .map_err(|source| OpenError::Mutexes { path: self.path.to_owned(), source })?;
            }
        }
        Ok(Some(area))
    }

    fn map(&self, header: &Header, layout: &Layout) -> Result<FileStore, OpenError> {
        let file = self.file.try_clone().map_err(self.system("duplicate the descriptor of"))?;
        let syncs = !self.options.flags.contains(Flags::NOSYNC)
            && std::env::var_os("TDB_NO_FSYNC").is_none();
        let store = FileStore::new(file, header.mutex_size, self.options.write, syncs)
            .map_err(self.system("map"))?;
        let len = store.refresh_len().map_err(|error| match error {
            StoreError::Io { source, .. } => self.system("use")(source),
            _ => self.system("use")(io::Error::from_raw_os_error(libc::EIO)),
        })?;
        let heads_end = u64::from(HEADER_LEN) + 4 * u64::from(layout.hash_size) + 4;
        if heads_end > u64::from(len) {
            let (path, hash_size) = (self.path.to_owned(), layout.hash_size);
            return Err(OpenError::Truncated { path, hash_size, len });
        }
        Ok(store)
    }

    /// Undoes a commit that was cut short. OPEN suffices: nobody commits without it.
    fn recover(&self, store: &FileStore) -> Result<(), OpenError> {
        let path = || self.path.to_owned();
        let failed = |source| OpenError::Recovery { path: path(), source };
        if !needs_recovery(store).map_err(|error| failed(error.into()))? {
            return Ok(());
        }
        if !self.options.write {
            return Err(OpenError::NeedsRecovery { path: path() });
        }
        recover_now(store).map_err(failed)
    }
}

/// Undoes a crashed commit, waiting for the disk. Never on a shard thread.
pub(crate) fn recover_now(store: &FileStore) -> Result<(), RecoveryError> {
    let Some(mut recovery) = Recovery::begin(store)? else { return Ok(()) };
    while let Step::Sync(point) = recovery.step(store)? {
        store.sync(point).map_err(|source| {
            RecoveryError::Store(StoreError::Io { action: "sync", offset: point.offset, source })
        })?;
    }
    Ok(())
}
