//! A daemon with nothing to do hardly does anything: one node, no event scripts, no clients.
//!
//! Ten minutes in soak (`RINGMASTER_SOAK_SECONDS=600`), judged by processor time; a quarter of a minute
//! in CI, judged by how often its threads wake up, which does not depend on how busy the machine is.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use ringmaster_compat::cluster::{Cluster, Config, Subject, processes};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::vitals::{self, Status};

/// Share of one processor that an idle daemon may take.
const SHARE_MAX: f64 = 0.001;

/// Wake-ups of all threads of the daemon in a second: the control thread looks after the cluster,
/// tells that it leads and takes the statistics once a second each (C: 17 to 25 in two processes).
const WAKE_UPS_MAX: f64 = 8.0;

/// Short runs are not judged by processor time, which is counted in hundredths of a second.
const JUDGED_FROM: Duration = Duration::from_secs(120);

/// What a daemon's processes have used and how often each thread has slept, by name.
struct Used {
    processor: Duration,
    sleeps: BTreeMap<String, u64>,
}

fn used(pids: &[i32]) -> Used {
    let mut used = Used { processor: Duration::ZERO, sleeps: BTreeMap::new() };
    for pid in pids {
        used.processor += vitals::processor_time(*pid).expect("it lives");
        for thread in vitals::threads(*pid) {
            // Threads come and go.
            let Ok(status) = Status::of(&thread) else { continue };
            let name = status.text("Name").expect("a name").to_owned();
            let sleeps = status.number("voluntary_ctxt_switches").expect("a number");
            *used.sleeps.entry(name).or_default() += sleeps;
        }
    }
    used
}

/// Share of a processor, and wake-ups a second by thread.
fn measure(subject: &Subject, length: Duration) -> (f64, BTreeMap<String, f64>) {
    let cluster = Cluster::prepare(Config::new(1).all(subject)).expect("a prepared node");
    let node = cluster.node(0);
    fs::remove_file(node.base().join("events/legacy/00.test.script")).expect("it was made");
    node.start().expect("a start");
    cluster.settle().expect("a healthy node");
    let own = node.daemon_pid().expect("it runs");
    // C has a recovery daemon of the same name. Event daemon and lock helper are others' business.
    let is_ctdbd = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        *pid == own || name.starts_with("ctdb_recoverd") || name.trim() == "ctdbd"
    };
    let all = processes::under(node.base()).into_iter().map(|pid| pid.as_raw_pid());
    let pids: Vec<i32> = all.filter(is_ctdbd).collect();
    let (begun, before) = (Instant::now(), used(&pids));
    thread::sleep(length);
    let (after, took) = (used(&pids), begun.elapsed().as_secs_f64());
    let share = (after.processor - before.processor).as_secs_f64() / took;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rate = |name: &String, sleeps: u64| {
        (sleeps - before.sleeps.get(name).copied().unwrap_or(0).min(sleeps)) as f64 / took
    };
    let rates = after.sleeps.iter().map(|(name, sleeps)| (name.clone(), rate(name, *sleeps)));
    (share, rates.collect())
}

#[test]
fn an_idle_daemon_sleeps() {
    let ctdbd = require_our_daemon!();
    let seconds = std::env::var("RINGMASTER_SOAK_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(15);
    let length = Duration::from_secs(seconds);
    let (ours, c) = thread::scope(|scope| {
        let c = scope.spawn(|| measure(&Subject::CDaemon, length));
        let ours = measure(&Subject::Ours { ctdbd }, length);
        (ours, c.join().expect("C's daemon was measured"))
    });
    for (name, (share, rates)) in [("c", &c), ("ours", &ours)] {
        let rates: Vec<_> = rates.iter().map(|(name, rate)| format!("{name} {rate:.1}")).collect();
        println!(
            "{name}: {:.3} % of a processor, wake-ups a second: {}",
            share * 100.0,
            rates.join(", ")
        );
    }
    let (share, rates) = ours;
    let wake_ups: f64 = rates.values().sum();
    assert!(wake_ups <= WAKE_UPS_MAX, "{wake_ups:.1} wake-ups a second");
    if length >= JUDGED_FROM {
        assert!(share <= SHARE_MAX, "{:.3} % of a processor", share * 100.0);
    }
}
