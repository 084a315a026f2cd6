//! The real libtdb, loaded at run time: the other side of every interoperability test.
//!
//! Role: a thin binding of `libtdb.so.1` for tests and benches ([`Tdb`]). A process of its own that
//! runs it on command ([`Locker`]): `libtdb_locker.rs`, whose names are here too.
//! Use from any crate: `#[path = ".../storage/tests/support/libtdb.rs"] mod libtdb;`. Needs only
//! `libc`. Never linked: where the library is missing, [`available`] says so and the test skips.
//! Invariants
//! - libtdb keeps a process-wide list of open files without a lock: opens and closes go through
//!   one mutex here.
//! - libtdb refuses a file that this process has open already (through libtdb), and its close
//!   drops every POSIX lock the process has on the file: tests about locks use [`Locker`].
//! - [`Tdb`] stays on its thread: the mutexes it locks belong to that thread.
//!
//! Origin: `tdb.h` of libtdb 1.4.8; `docs/spec/tdb-format.md` 3.1 and appendix A.
#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "libtdb_locker.rs"]
mod locker;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock};

#[allow(unused_imports, reason = "not every test has a process of libtdb")]
pub use locker::*;

/// Flags of `tdb_open` (`docs/spec/tdb-format.md` 3.1).
pub mod flag {
    pub const DEFAULT: i32 = 0;
    pub const CLEAR_IF_FIRST: i32 = 1;
    pub const INTERNAL: i32 = 2;
    pub const NOLOCK: i32 = 4;
    pub const NOMMAP: i32 = 8;
    pub const CONVERT: i32 = 16;
    pub const NOSYNC: i32 = 64;
    pub const SEQNUM: i32 = 128;
    pub const VOLATILE: i32 = 256;
    pub const ALLOW_NESTING: i32 = 512;
    pub const DISALLOW_NESTING: i32 = 1024;
    pub const INCOMPATIBLE_HASH: i32 = 2048;
    pub const MUTEX_LOCKING: i32 = 4096;
}

/// Modes of [`Tdb::store`].
pub mod mode {
    pub const REPLACE: i32 = 1;
    pub const INSERT: i32 = 2;
    pub const MODIFY: i32 = 3;
}

/// libtdb's error codes.
pub mod error {
    pub const CORRUPT: i32 = 1;
    pub const IO: i32 = 2;
    pub const LOCK: i32 = 3;
    pub const OOM: i32 = 4;
    pub const EXISTS: i32 = 5;
    pub const NOLOCK: i32 = 6;
    pub const NOEXIST: i32 = 8;
    pub const EINVAL: i32 = 9;
    pub const RDONLY: i32 = 10;
    pub const NESTING: i32 = 11;
}

/// What `tdb_error` said after a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdbError(pub i32);

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    dptr: *mut u8,
    dsize: usize,
}

impl Data {
    fn borrowed(bytes: &[u8]) -> Self {
        Self { dptr: bytes.as_ptr().cast_mut(), dsize: bytes.len() }
    }
}

/// Key and value of one record.
pub type KeyValue = (Vec<u8>, Vec<u8>);

type Raw = *mut c_void;
type Visit = unsafe extern "C" fn(Raw, Data, Data, *mut c_void) -> c_int;
type CheckRecord = unsafe extern "C" fn(Data, Data, *mut c_void) -> c_int;

macro_rules! symbols {
    ($($name:ident: fn($($arg:ty),*) -> $ret:ty;)*) => {
        /// The functions, found once by [`library`].
        pub struct Library { $($name: unsafe extern "C" fn($($arg),*) -> $ret,)* }

        impl Library {
            fn load() -> Result<Self, String> {
                // SAFETY: the name is a NUL-terminated literal; loading libtdb runs no code that
                // depends on the state of this process.
                let handle = unsafe { libc::dlopen(c"libtdb.so.1".as_ptr(), libc::RTLD_NOW) };
                if handle.is_null() {
                    return Err("libtdb.so.1 cannot be loaded (package libtdb1)".to_owned());
                }
                $(
                    let name = concat!(stringify!($name), "\0").as_ptr().cast::<c_char>();
                    // SAFETY: `handle` is a live handle (checked above, never closed) and `name`
                    // ends with a NUL.
                    let $name = unsafe { libc::dlsym(handle, name) };
                    if $name.is_null() {
                        return Err(concat!("libtdb.so.1 lacks ", stringify!($name)).to_owned());
                    }
                )*
                Ok(Self { $(
                    $name: {
                        // SAFETY: a non-null symbol of this name has the signature `tdb.h`
                        // declares, which the table below repeats; the library stays loaded.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($arg),*) -> $ret,
                            >($name)
                        }
                    },
                )* })
            }
        }
    };
}

symbols! {
    tdb_open: fn(*const c_char, c_int, c_int, c_int, libc::mode_t) -> Raw;
    tdb_close: fn(Raw) -> c_int;
    tdb_error: fn(Raw) -> c_int;
    tdb_fetch: fn(Raw, Data) -> Data;
    tdb_exists: fn(Raw, Data) -> c_int;
    tdb_firstkey: fn(Raw) -> Data;
    tdb_nextkey: fn(Raw, Data) -> Data;
    tdb_store: fn(Raw, Data, Data, c_int) -> c_int;
    tdb_delete: fn(Raw, Data) -> c_int;
    tdb_append: fn(Raw, Data, Data) -> c_int;
    tdb_chainlock: fn(Raw, Data) -> c_int;
    tdb_chainlock_nonblock: fn(Raw, Data) -> c_int;
    tdb_chainunlock: fn(Raw, Data) -> c_int;
    tdb_chainlock_read: fn(Raw, Data) -> c_int;
    tdb_chainlock_read_nonblock: fn(Raw, Data) -> c_int;
    tdb_chainunlock_read: fn(Raw, Data) -> c_int;
    tdb_lockall: fn(Raw) -> c_int;
    tdb_lockall_nonblock: fn(Raw) -> c_int;
    tdb_unlockall: fn(Raw) -> c_int;
    tdb_lockall_read: fn(Raw) -> c_int;
    tdb_lockall_read_nonblock: fn(Raw) -> c_int;
    tdb_unlockall_read: fn(Raw) -> c_int;
    tdb_traverse: fn(Raw, Visit, *mut c_void) -> c_int;
    tdb_traverse_read: fn(Raw, Visit, *mut c_void) -> c_int;
    tdb_transaction_start: fn(Raw) -> c_int;
    tdb_transaction_start_nonblock: fn(Raw) -> c_int;
    tdb_transaction_prepare_commit: fn(Raw) -> c_int;
    tdb_transaction_commit: fn(Raw) -> c_int;
    tdb_transaction_cancel: fn(Raw) -> c_int;
    tdb_check: fn(Raw, Option<CheckRecord>, *mut c_void) -> c_int;
    tdb_wipe_all: fn(Raw) -> c_int;
    tdb_repack: fn(Raw) -> c_int;
    tdb_validate_freelist: fn(Raw, *mut c_int) -> c_int;
    tdb_freelist_size: fn(Raw) -> c_int;
    tdb_get_seqnum: fn(Raw) -> c_int;
    tdb_enable_seqnum: fn(Raw) -> ();
    tdb_hash_size: fn(Raw) -> c_int;
    tdb_map_size: fn(Raw) -> usize;
    tdb_get_flags: fn(Raw) -> c_int;
    tdb_add_flags: fn(Raw, c_uint) -> ();
    tdb_remove_flags: fn(Raw, c_uint) -> ();
    tdb_set_max_dead: fn(Raw, c_int) -> ();
    tdb_fd: fn(Raw) -> c_int;
    tdb_summary: fn(Raw) -> *mut c_char;
    tdb_jenkins_hash: fn(*mut Data) -> c_uint;
    tdb_runtime_check_for_robust_mutexes: fn() -> bool;
}

/// Guards libtdb's unlocked list of open files.
static OPEN_LIST: Mutex<()> = Mutex::new(());

/// The library, loaded at first use.
///
/// # Errors
/// What is missing, for a "skipped" line.
pub fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(Library::load).as_ref().map_err(String::as_str)
}

/// True if libtdb can be used here. Otherwise prints the skip line, or panics where the run must
/// be complete (`RINGMASTER_REQUIRE_ALL=1`).
pub fn available() -> bool {
    match library() {
        Ok(_) => true,
        Err(reason) => {
            assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "skipped: {reason}");
            println!("skipped: {reason}");
            false
        }
    }
}

/// Makes libtdb believe in robust mutexes: its own check forks a child and leaves a SIGCHLD
/// handler behind, and without it `MUTEX_LOCKING` opens fail with ENOSYS.
pub fn robust_mutexes_supported() -> bool {
    let library = library().expect("asked for after available()");
    // SAFETY: no arguments; libtdb caches the answer. Not called concurrently with fork-sensitive
    // code: tests call it before they start threads of their own.
    unsafe { (library.tdb_runtime_check_for_robust_mutexes)() }
}

/// One open file of libtdb.
pub struct Tdb {
    raw: NonNull<c_void>,
    library: &'static Library,
}

macro_rules! key_calls {
    ($($(#[$doc:meta])* $method:ident => $symbol:ident;)*) => { $(
        $(#[$doc])*
        pub fn $method(&self, key: &[u8]) -> Result<(), TdbError> {
            // SAFETY: `raw` is an open handle of this thread; `key` outlives the call.
            let status = unsafe {
                (self.library.$symbol)(self.raw.as_ptr(), Data::borrowed(key))
            };
            self.outcome(status)
        }
    )* };
}

macro_rules! plain_calls {
    ($($(#[$doc:meta])* $method:ident => $symbol:ident;)*) => { $(
        $(#[$doc])*
        pub fn $method(&self) -> Result<(), TdbError> {
            // SAFETY: `raw` is an open handle of this thread.
            let status = unsafe { (self.library.$symbol)(self.raw.as_ptr()) };
            self.outcome(status)
        }
    )* };
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $method:ident => $symbol:ident -> $ret:ty;)*) => { $(
        $(#[$doc])*
        pub fn $method(&self) -> $ret {
            // SAFETY: `raw` is an open handle of this thread.
            unsafe { (self.library.$symbol)(self.raw.as_ptr()) }
        }
    )* };
}

impl Tdb {
    /// `tdb_open`. `open_flags` as for `open(2)`; mode 0600.
    ///
    /// # Errors
    /// What libtdb left in `errno`.
    pub fn open(path: &Path, hash_size: i32, flags: i32, open_flags: i32) -> io::Result<Self> {
        let library = library().map_err(io::Error::other)?;
        if flags & flag::MUTEX_LOCKING != 0 {
            robust_mutexes_supported();
        }
        let name = CString::new(path.as_os_str().as_bytes())?;
        let _guard = OPEN_LIST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: `name` is NUL-terminated and outlives the call; the open list is guarded.
        let raw = unsafe { (library.tdb_open)(name.as_ptr(), hash_size, flags, open_flags, 0o600) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, library }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Opens read-write, creating the file where it is missing.
    ///
    /// # Errors
    /// As [`Tdb::open`].
    pub fn create(path: &Path, hash_size: i32, flags: i32) -> io::Result<Self> {
        Self::open(path, hash_size, flags, libc::O_RDWR | libc::O_CREAT)
    }

    fn outcome(&self, status: c_int) -> Result<(), TdbError> {
        if status == 0 { Ok(()) } else { Err(TdbError(self.error())) }
    }

    numbers! {
        /// `tdb_error`: code of the last failure (sticky).
        error => tdb_error -> c_int;
        /// `tdb_get_seqnum`.
        seqnum => tdb_get_seqnum -> c_int;
        hash_size => tdb_hash_size -> c_int;
        map_size => tdb_map_size -> usize;
        flags => tdb_get_flags -> c_int;
        /// The descriptor; owned by libtdb.
        fd => tdb_fd -> c_int;
        /// `tdb_freelist_size`: merges while it counts.
        freelist_size => tdb_freelist_size -> c_int;
        /// `tdb_enable_seqnum`.
        enable_seqnum => tdb_enable_seqnum -> ();
    }

    key_calls! {
        delete => tdb_delete;
        chainlock => tdb_chainlock;
        chainlock_nonblock => tdb_chainlock_nonblock;
        chainunlock => tdb_chainunlock;
        chainlock_read => tdb_chainlock_read;
        chainlock_read_nonblock => tdb_chainlock_read_nonblock;
        chainunlock_read => tdb_chainunlock_read;
    }

    plain_calls! {
        lockall => tdb_lockall;
        lockall_nonblock => tdb_lockall_nonblock;
        unlockall => tdb_unlockall;
        lockall_read => tdb_lockall_read;
        lockall_read_nonblock => tdb_lockall_read_nonblock;
        unlockall_read => tdb_unlockall_read;
        transaction_start => tdb_transaction_start;
        transaction_start_nonblock => tdb_transaction_start_nonblock;
        transaction_prepare_commit => tdb_transaction_prepare_commit;
        transaction_commit => tdb_transaction_commit;
        transaction_cancel => tdb_transaction_cancel;
        wipe_all => tdb_wipe_all;
        repack => tdb_repack;
    }

    /// `tdb_fetch`: the value, copied.
    pub fn fetch(&self, key: &[u8]) -> Option<Vec<u8>> {
        // SAFETY: `raw` is an open handle of this thread; `key` outlives the call.
        let found = unsafe { (self.library.tdb_fetch)(self.raw.as_ptr(), Data::borrowed(key)) };
        if found.dptr.is_null() {
            return None;
        }
        let value = copied(found);
        // SAFETY: `tdb_fetch` hands out memory of malloc that the caller frees, once, here.
        unsafe { libc::free(found.dptr.cast()) };
        Some(value)
    }

    /// `tdb_firstkey`, or `tdb_nextkey` after `key`: another way to walk than [`Tdb::traverse`].
    pub fn next_key(&self, key: Option<&[u8]>) -> Option<Vec<u8>> {
        let raw = self.raw.as_ptr();
        let found = match key {
            // SAFETY: `raw` is an open handle of this thread; `key` outlives the call.
            Some(key) => unsafe { (self.library.tdb_nextkey)(raw, Data::borrowed(key)) },
            // SAFETY: `raw` is an open handle of this thread.
            None => unsafe { (self.library.tdb_firstkey)(raw) },
        };
        if found.dptr.is_null() {
            return None;
        }
        let key = copied(found);
        // SAFETY: both hand out memory of malloc that the caller frees, once, here.
        unsafe { libc::free(found.dptr.cast()) };
        Some(key)
    }

    /// `tdb_fetch` as C programs use it: length of the value, which is freed. For measurements.
    pub fn fetch_len(&self, key: &[u8]) -> Option<usize> {
        // SAFETY: `raw` is an open handle of this thread; `key` outlives the call.
        let found = unsafe { (self.library.tdb_fetch)(self.raw.as_ptr(), Data::borrowed(key)) };
        if found.dptr.is_null() {
            return None;
        }
        // SAFETY: `tdb_fetch` hands out memory of malloc that the caller frees, once, here.
        unsafe { libc::free(found.dptr.cast()) };
        Some(found.dsize)
    }

    /// `tdb_traverse_read` for measuring: a callback that looks at nothing. Number of records.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn count_records(&self) -> Result<usize, TdbError> {
        let call = self.library.tdb_traverse_read;
        // SAFETY: `raw` is an open handle of this thread; the callback ignores its state.
        let visited = unsafe { call(self.raw.as_ptr(), ignore_record, std::ptr::null_mut()) };
        usize::try_from(visited).map_err(|_| TdbError(self.error()))
    }

    /// `tdb_exists`.
    pub fn exists(&self, key: &[u8]) -> bool {
        // SAFETY: `raw` is an open handle of this thread; `key` outlives the call.
        let found = unsafe { (self.library.tdb_exists)(self.raw.as_ptr(), Data::borrowed(key)) };
        found != 0
    }

    /// `tdb_store` with one of [`mode`].
    ///
    /// # Errors
    /// libtdb's code.
    pub fn store(&self, key: &[u8], value: &[u8], mode: i32) -> Result<(), TdbError> {
        let (key, value) = (Data::borrowed(key), Data::borrowed(value));
        // SAFETY: `raw` is an open handle of this thread; both slices outlive the call.
        let status = unsafe { (self.library.tdb_store)(self.raw.as_ptr(), key, value, mode) };
        self.outcome(status)
    }

    /// `tdb_append`.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn append(&self, key: &[u8], more: &[u8]) -> Result<(), TdbError> {
        let (key, more) = (Data::borrowed(key), Data::borrowed(more));
        // SAFETY: `raw` is an open handle of this thread; both slices outlive the call.
        let status = unsafe { (self.library.tdb_append)(self.raw.as_ptr(), key, more) };
        self.outcome(status)
    }

    /// `tdb_traverse`; the visitor returns false to stop. Returns the number of records visited.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn traverse(&self, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<usize, TdbError> {
        self.traverse_with(self.library.tdb_traverse, &mut visit)
    }

    /// `tdb_traverse_read`.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn traverse_read(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<usize, TdbError> {
        self.traverse_with(self.library.tdb_traverse_read, &mut visit)
    }

    fn traverse_with(
        &self,
        call: unsafe extern "C" fn(Raw, Visit, *mut c_void) -> c_int,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<usize, TdbError> {
        let mut visit = visit;
        let state = (&raw mut visit).cast::<c_void>();
        // SAFETY: `raw` is an open handle of this thread; `state` points to `visit`, which lives
        // until the traverse returns and is used by nobody else meanwhile.
        let visited = unsafe { call(self.raw.as_ptr(), visit_record, state) };
        usize::try_from(visited).map_err(|_| TdbError(self.error()))
    }

    /// All records as libtdb's read traverse meets them.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn records(&self) -> Result<Vec<KeyValue>, TdbError> {
        let mut records = Vec::new();
        self.traverse_read(|key, value| {
            records.push((key.to_vec(), value.to_vec()));
            true
        })?;
        Ok(records)
    }

    /// `tdb_check` without a record callback.
    ///
    /// # Errors
    /// libtdb's code: the file is corrupt in its eyes.
    pub fn check(&self) -> Result<(), TdbError> {
        // SAFETY: `raw` is an open handle of this thread; a null callback is allowed.
        let status =
            unsafe { (self.library.tdb_check)(self.raw.as_ptr(), None, std::ptr::null_mut()) };
        self.outcome(status)
    }

    /// `tdb_validate_freelist`: number of entries.
    ///
    /// # Errors
    /// libtdb's code.
    pub fn validate_freelist(&self) -> Result<i32, TdbError> {
        let mut entries = 0;
        // SAFETY: `raw` is an open handle of this thread; `entries` is a live `c_int`.
        let status =
            unsafe { (self.library.tdb_validate_freelist)(self.raw.as_ptr(), &raw mut entries) };
        self.outcome(status).map(|()| entries)
    }

    /// `tdb_set_max_dead`.
    pub fn set_max_dead(&self, max_dead: i32) {
        // SAFETY: `raw` is an open handle of this thread.
        unsafe { (self.library.tdb_set_max_dead)(self.raw.as_ptr(), max_dead) };
    }

    /// `tdb_add_flags`.
    pub fn add_flags(&self, flags: u32) {
        // SAFETY: `raw` is an open handle of this thread.
        unsafe { (self.library.tdb_add_flags)(self.raw.as_ptr(), flags) };
    }

    /// `tdb_remove_flags`.
    pub fn remove_flags(&self, flags: u32) {
        // SAFETY: `raw` is an open handle of this thread.
        unsafe { (self.library.tdb_remove_flags)(self.raw.as_ptr(), flags) };
    }

    /// `tdb_summary`.
    pub fn summary(&self) -> Option<String> {
        // SAFETY: `raw` is an open handle of this thread.
        let text = unsafe { (self.library.tdb_summary)(self.raw.as_ptr()) };
        if text.is_null() {
            return None;
        }
        // SAFETY: a non-null result is a NUL-terminated string of malloc.
        let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        // SAFETY: as above; freed once.
        unsafe { libc::free(text.cast()) };
        Some(copy)
    }
}

impl Drop for Tdb {
    fn drop(&mut self) {
        let _guard = OPEN_LIST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: `raw` is an open handle of this thread and is not used again.
        unsafe { (self.library.tdb_close)(self.raw.as_ptr()) };
    }
}

/// `tdb_jenkins_hash` of a key.
pub fn jenkins_hash(key: &[u8]) -> u32 {
    let library = library().expect("asked for after available()");
    let mut data = Data::borrowed(key);
    // SAFETY: `data` points to a live slice that the function only reads.
    unsafe { (library.tdb_jenkins_hash)(&raw mut data) }
}

fn copied(data: Data) -> Vec<u8> {
    if data.dptr.is_null() || data.dsize == 0 {
        return Vec::new();
    }
    // SAFETY: libtdb hands out `dsize` readable bytes that nobody writes during this call.
    unsafe { std::slice::from_raw_parts(data.dptr, data.dsize) }.to_vec()
}

unsafe extern "C" fn ignore_record(_: Raw, _: Data, _: Data, _: *mut c_void) -> c_int {
    0
}

unsafe extern "C" fn visit_record(_tdb: Raw, key: Data, value: Data, state: *mut c_void) -> c_int {
    let state = state.cast::<&mut dyn FnMut(&[u8], &[u8]) -> bool>();
    // SAFETY: `traverse_with` passes a pointer to its own `visit`, alive and borrowed by nobody
    // else while the traverse runs.
    let visit = unsafe { &mut *state };
    c_int::from(!visit(&copied(key), &copied(value)))
}
