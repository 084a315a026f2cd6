//! Takes the lock, says so, keeps it, and gives it back.

use std::{
    future::Future,
    io::Write,
    time::{Duration, Instant},
};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, LeaseKeepAliveStream,
    LeaseKeeper, PutOptions, TlsOptions, Txn, TxnOp,
};
use rustix::process::{Pid, getpid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{arguments::Arguments, complain, lease::Lease};

/// Limit on connecting and taking the lock. The daemon's own is 120 s (5 s when it tests the lock in
/// a recovery).
const TAKE: Duration = Duration::from_secs(4);
/// Limit on giving the lock back: the daemon kills a helper that takes 2 s.
const GIVE_BACK: Duration = Duration::from_millis(1500);
/// How often the parent is looked for.
const PARENT_POLL: Duration = Duration::from_secs(1);

/// What the daemon is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Held,
    Contended,
    Failed,
}

impl Verdict {
    fn say(self) {
        let character: &[u8] = match self {
            Self::Held => b"0",
            Self::Contended => b"1",
            Self::Failed => b"3",
        };
        let mut stdout = std::io::stdout();
        // The daemon may be gone; that its place is empty is noticed a moment later.
        let _ = stdout.write_all(character).and_then(|()| stdout.flush());
    }
}

/// The lock, held.
struct Held {
    client: Client,
    key: String,
    id: i64,
    lease: Lease,
}

/// Ends when the lock is not held or not to be had.
pub(crate) async fn run(arguments: &Arguments) {
    let parent = getppid();
    // A helper whose daemon is gone already must not hold the lock.
    if parent.is_none_or(|parent| parent == Pid::INIT) {
        complain("the parent is gone");
        return;
    }
    // Before the lock is taken: SIGTERM must find somebody who gives it back.
    let Ok(mut end) = signal(SignalKind::terminate()) else {
        complain("cannot listen to SIGTERM");
        return Verdict::Failed.say();
    };
    let taken = tokio::select! {
        taken = within(TAKE, take(arguments)) => taken,
        _ = end.recv() => return,
    };
    let mut held = match taken {
        Ok(Some(held)) => held,
        Ok(None) => return Verdict::Contended.say(),
        Err(reason) => {
            complain(&format!("cannot take the lock: {reason}"));
            return Verdict::Failed.say();
        }
    };
    Verdict::Held.say();
    let why = keep(&mut held, &mut end, parent).await;
    if let Some(why) = why {
        complain(&format!("lock lost - {why}"));
    }
    let id = held.id;
    let _ = within(GIVE_BACK, async { held.client.lease_revoke(id).await.map_err(text) }).await;
}

fn text(error: etcd_client::Error) -> String {
    error.to_string()
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::time::timeout(limit, work).await.map_err(|_| format!("no answer in {limit:?}"))?
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn options(arguments: &Arguments) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new().with_connect_timeout(TAKE / 2).with_timeout(TAKE / 2);
    if arguments.ca.is_some() || arguments.identity.is_some() {
        let mut tls = TlsOptions::new();
        if let Some(ca) = &arguments.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some((cert, key)) = &arguments.identity {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        options = options.with_tls(tls);
    }
    if let Some((user, file)) = &arguments.user {
        let password = String::from_utf8_lossy(&read(file)?).trim_end().to_owned();
        options = options.with_user(user.clone(), password);
    }
    Ok(options)
}

/// `None`: somebody else has it.
async fn take(arguments: &Arguments) -> Result<Option<Held>, String> {
    let options = options(arguments)?;
    let mut client = Client::connect(&arguments.endpoints, Some(options)).await.map_err(text)?;
    let sent = Instant::now();
    let granted = client.lease_grant(arguments.ttl_s, None).await.map_err(text)?;
    let id = granted.id();
    let ttl_s = u64::try_from(granted.ttl()).map_err(|_| "a lease without life".to_owned())?;
    let lease = Lease::granted(Duration::from_secs(ttl_s), sent);
    let key = arguments.key.clone();
    let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
    let put = TxnOp::put(key.clone(), owner(), Some(PutOptions::new().with_lease(id)));
    let done = client.txn(Txn::new().when([absent]).and_then([put])).await;
    match done {
        Ok(done) if done.succeeded() => Ok(Some(Held { client, key, id, lease })),
        not_mine => {
            // Its own life ends it otherwise.
            let _ = client.lease_revoke(id).await;
            not_mine.map(|_| None).map_err(text)
        }
    }
}

/// Value of the key, for people.
fn owner() -> String {
    let host = rustix::system::uname();
    format!("{} pid {}", host.nodename().to_string_lossy(), getpid())
}

/// Returns when the lock is lost and why, or `None` when it is to be given back.
async fn keep(held: &mut Held, end: &mut Signal, parent: Option<Pid>) -> Option<String> {
    let (mut keeper, mut answers) = match held.client.lease_keep_alive(held.id).await {
        Ok(opened) => opened,
        Err(error) => return Some(format!("the lease cannot be refreshed: {error}")),
    };
    let mut attempt = Instant::now();
    loop {
        let next = held.lease.next_refresh(attempt).min(Instant::now() + PARENT_POLL);
        tokio::select! {
            _ = end.recv() => return None,
            () = tokio::time::sleep_until(next.into()) => {}
        }
        if getppid() != parent {
            return Some("the daemon is gone".into());
        }
        if Instant::now() >= held.lease.held_until() {
            // The process stood still, or etcd was away for too long.
            return Some("the lease has run out".into());
        }
        if Instant::now() < held.lease.next_refresh(attempt) {
            continue;
        }
        attempt = Instant::now();
        let until = held.lease.held_until();
        let refreshed = tokio::select! {
            _ = end.recv() => return None,
            refreshed = refresh(held, &mut keeper, &mut answers) => refreshed,
            () = tokio::time::sleep_until(until.into()) => Err("no answer from etcd".into()),
        };
        match refreshed {
            Ok(()) => held.lease.refreshed(attempt),
            Err(Loss(why)) => return Some(why),
        }
    }
}

/// Why the lock is not held any more, or may not be.
struct Loss(String);

impl From<&str> for Loss {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

/// Refreshes the lease and looks whether the key is still its own.
async fn refresh(
    held: &mut Held,
    keeper: &mut LeaseKeeper,
    answers: &mut LeaseKeepAliveStream,
) -> Result<(), Loss> {
    loop {
        match once(held, keeper, answers).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err("the key is gone".into()),
            Err(reason) => complain(&format!("refresh failed, trying again: {reason}")),
        }
        // Another server of the cluster may be better off; the caller limits this.
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let Ok((new_keeper, new_answers)) = held.client.lease_keep_alive(held.id).await {
            (*keeper, *answers) = (new_keeper, new_answers);
        }
    }
}

/// `false`: the lease or the key is not this holder's any more.
async fn once(
    held: &mut Held,
    keeper: &mut LeaseKeeper,
    answers: &mut LeaseKeepAliveStream,
) -> Result<bool, String> {
    keeper.keep_alive().await.map_err(text)?;
    let answer = answers.message().await.map_err(text)?.ok_or("the stream has ended")?;
    if answer.ttl() <= 0 {
        return Ok(false);
    }
    let found = held.client.get(held.key.clone(), None).await.map_err(text)?;
    Ok(found.kvs().first().is_some_and(|entry| entry.lease() == held.id))
}
