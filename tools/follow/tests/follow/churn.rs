//! Vacuuming while every node makes and deletes a thousand records a second. `RINGMASTER_SOAK_SECONDS`
//! makes it long; then it is also measured how long a locked fetch takes, with vacuuming and without.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringmaster_follow::life::{CCC, Life};
use ringmaster_follow::load::Load;
use ringmaster_follow::load::churn::{Churn, Latencies, permille};
use ringmaster_follow::steps::{generation, set_tunable};

super::lives!(|config| config, story);

/// Records made, and deleted, each second on each node.
const PER_SECOND: u64 = 1_000;
/// How long in the short form, in seconds: three rounds of vacuuming.
const SHORT_S: u64 = 30;
/// Longest p99.9 of a locked fetch with vacuuming, in tenths of the one without.
const LONGER_MAX: u32 = 15;

fn story(life: &Life) -> Result<()> {
    let seconds = std::env::var("RINGMASTER_SOAK_SECONDS").ok();
    let long = seconds.map(|seconds| seconds.parse()).transpose()?;
    let length = Duration::from_secs(long.unwrap_or(SHORT_S));
    let churn = Churn::new("churn.tdb", PER_SECOND);
    let latencies = Latencies::default();
    let mut load = Load::new();
    for node in life.nodes() {
        load.add(life, node, "making and deleting", churn.churning(node));
        load.add(life, node, "probing", latencies.probing("churn.tdb", node));
    }
    let before = (generation(life, 0)?, life.cluster.settle()?.leader);
    if long.is_none() {
        work(&load, length)?;
    } else {
        set_tunable(life, &life.nodes(), "VacuumInterval", 100_000)?;
        // Until a round that has begun is over, and every record is known.
        work(&load, Duration::from_secs(30))?;
        let without = phase(life, "without vacuuming", (&load, &churn, &latencies), length)?;
        set_tunable(life, &life.nodes(), "VacuumInterval", 10)?;
        let with = phase(life, "with vacuuming", (&load, &churn, &latencies), length)?;
        let longer = with.as_secs_f64() / without.as_secs_f64();
        println!("{}: p99.9 with vacuuming / without: {longer:.2}", life.composition.name);
        ensure!(
            life.composition == CCC || with * 10 <= without * LONGER_MAX,
            "vacuuming makes the p99.9 of a locked fetch {longer:.2} times as long"
        );
    }
    load.finish()?;
    let after = (generation(life, 0)?, life.cluster.settle()?.leader);
    // A ban causes a recovery too.
    ensure!(before == after, "a recovery or an election: {before:?}, then {after:?}");
    churn.check(life)
}

fn work(load: &Load, length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        load.rounds(10)?;
    }
    Ok(())
}

/// The p99.9 of a locked fetch.
fn phase(
    life: &Life,
    name: &str,
    (load, churn, latencies): (&Load, &Churn, &Latencies),
    length: Duration,
) -> Result<Duration> {
    let (started, made) = (Instant::now(), churn.total());
    drop(latencies.take());
    work(load, length)?;
    let taken = latencies.take();
    let rate = (churn.total() - made) as f64 / started.elapsed().as_secs_f64();
    let [half, p99, p999] = [500, 990, 999].map(|wanted| permille(&taken, wanted));
    println!(
        "{} {name}: {rate:.0} records a second made and deleted on 3 nodes, {} locked fetches: \
         p50 {half:?}, p99 {p99:?}, p99.9 {p999:?}",
        life.composition.name,
        taken.len()
    );
    Ok(p999)
}
