//! Inserts and deletes of two processes on one file: our default policy, our reserve, libtdb.
//!
//! Each process has keys of its own, in different chains for the most part; they meet at the
//! freelist. Rounds alternate between the three sides; each starts fresh processes on a fresh file.
//! "same keys": random ones of a fixed set are deleted if there and inserted if not. "new keys": a
//! key is never used again, the worst case of a reserve: each insert needs a new block.

use anyhow::{Context, Result};

use super::libtdb::flag;
use super::{Clock, MODES, Options, Side, VALUE_LEN, Worker, in_step, key, median, scratch};

const SIDES: [&str; 3] = ["ours", "reserve", "libtdb"];
const KEYS: [&str; 2] = ["same", "new"];
/// Operations per key of the set.
const TIMES: u32 = 10;

/// Measures and prints.
pub(super) fn compare(options: &Options) -> Result<()> {
    println!("contended insert+delete, 2 processes: ns per operation; ratios: median (range)");
    for (name, flags) in modes() {
        for keys in KEYS {
            let mut times: [Vec<f64>; 3] = Default::default();
            for round in 0..options.rounds {
                for turn in 0..SIDES.len() {
                    let side = (round + turn) % SIDES.len();
                    times[side].push(run(options, SIDES[side], flags, keys)?);
                }
            }
            print_line(name, keys, &times);
        }
    }
    Ok(())
}

/// Those with locks; and VOLATILE, where libtdb's policy leaves dead records as well.
fn modes() -> [(&'static str, i32); 3] {
    let [_, fcntl, mutex] = MODES;
    [fcntl, mutex, ("mutex volatile", mutex.1 | flag::VOLATILE)]
}

fn run(options: &Options, side: &str, flags: i32, keys: &str) -> Result<f64> {
    let directory = scratch()?;
    let path = directory.path().join("contended.tdb");
    let path = path.to_str().context("a UTF-8 path")?;
    let (flags, records) = (flags.to_string(), options.records.to_string());
    let start =
        |process: &str| Worker::start(&["contended", side, &flags, path, keys, &records, process]);
    let times = in_step(vec![start("0")?, start("1")?], 1)?;
    times.first().copied().context("one line")
}

fn print_line(mode: &str, keys: &str, times: &[Vec<f64>; 3]) {
    let [default, reserve, libtdb] = times;
    let ratio = |other: &[f64]| {
        let mut ratios: Vec<_> =
            other.iter().zip(reserve).map(|(other, reserve)| other / reserve).collect();
        ratios.sort_by(f64::total_cmp);
        let ends = ratios.first().zip(ratios.last());
        let (low, high) = ends.map_or((0.0, 0.0), |(low, high)| (*low, *high));
        format!("{:.2} ({low:.2} to {high:.2})", median(ratios))
    };
    println!(
        "{mode:<14} {keys:>4} keys: default {:.0} / reserve {:.0} / libtdb {:.0}; \
         default/reserve {}, libtdb/reserve {}",
        median(default.clone()),
        median(reserve.clone()),
        median(libtdb.clone()),
        ratio(default),
        ratio(libtdb),
    );
}

/// One of the two processes.
pub(super) fn work(mut side: Side, keys: &str, records: u32, process: u32) -> Result<()> {
    let value = [1; VALUE_LEN];
    for number in 0..records {
        side.store(&key(process, number), &value, true)?;
    }
    let mut input = std::io::stdin().lines();
    println!("ready");
    input.next().context("the parent is gone")??;
    let operations = records * TIMES;
    let clock = Clock::start("wall");
    if keys == "same" {
        let mut there = vec![true; records as usize];
        let mut random = u64::from(process) + 1;
        for _ in 0..operations {
            random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            let number = u32::try_from((random >> 33) % u64::from(records))?;
            let there = &mut there[number as usize];
            if *there {
                side.delete(&key(process, number))?;
            } else {
                side.store(&key(process, number), &value, true)?;
            }
            *there = !*there;
        }
    } else {
        for number in 0..operations / 2 {
            side.delete(&key(process, number))?;
            side.store(&key(process, number + records), &value, true)?;
        }
    }
    println!("{}", clock.nanos_per(operations));
    Ok(())
}
