//! What a running process holds and uses, as the kernel counts it.
//!
//! Role: reads `/proc/PID`; knows nothing of daemons.
//! Invariants: looks only. A process that has ended is an error that names it.
//! Origin: `proc_pid_status(5)`, `proc_pid_stat(5)`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Units of processor time per second in `/proc` (`USER_HZ`, the same on all of Linux).
const TICKS_PER_SECOND: u64 = 100;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Open descriptors.
    pub descriptors: usize,
    /// Memory in RAM, kB.
    pub resident_kb: u64,
    /// Of it what no file stands behind: heap and stacks, kB.
    pub anonymous_kb: u64,
    /// Locked into RAM, kB.
    pub locked_kb: u64,
}

impl Vitals {
    /// Of a living process.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(pid: i32) -> Result<Self> {
        let status = Status::of(&process(pid))?;
        Ok(Self {
            descriptors: descriptors(pid)?,
            resident_kb: status.number("VmRSS")?,
            anonymous_kb: status.number("RssAnon")?,
            locked_kb: status.number("VmLck")?,
        })
    }
}

/// Open descriptors of a process.
///
/// # Errors
/// It has ended.
pub fn descriptors(pid: i32) -> Result<usize> {
    let open = process(pid).join("fd");
    Ok(fs::read_dir(&open).with_context(|| format!("cannot read {}", open.display()))?.count())
}

/// Processor time that all threads of a process have used, to 10 ms.
///
/// # Errors
/// It has ended.
pub fn processor_time(pid: i32) -> Result<Duration> {
    let path = process(pid).join("stat");
    let stat =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let ticks = ticks(&stat).with_context(|| format!("cannot understand {stat}"))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// Fields 14 and 15 of a `stat` line: utime and stime. The name, field 2, may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ').skip(14 - 3);
    let mut number = || after_name.next()?.parse::<u64>().ok();
    Some(number()? + number()?)
}

/// The threads of a process: directories like `/proc/PID/task/TID`.
#[must_use]
pub fn threads(pid: i32) -> Vec<PathBuf> {
    let entries = fs::read_dir(process(pid).join("task")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The lines of a `status` file, by name.
#[derive(Clone, Debug)]
pub struct Status {
    lines: BTreeMap<String, String>,
    path: PathBuf,
}

impl Status {
    /// Of a process or thread: `/proc/PID` or one of [`threads`].
    ///
    /// # Errors
    /// It has ended.
    pub fn of(directory: &Path) -> Result<Self> {
        let path = directory.join("status");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Self { lines: lines.collect(), path })
    }

    /// The value of a line.
    ///
    /// # Errors
    /// There is no such line: another kernel.
    pub fn text(&self, name: &str) -> Result<&str> {
        let value = self.lines.get(name).map(String::as_str);
        value.with_context(|| format!("no line {name} in {}", self.path.display()))
    }

    /// The number that the value begins with.
    ///
    /// # Errors
    /// No such line, or no number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let value = self.text(name)?;
        let number = value.split_whitespace().next().and_then(|word| word.parse().ok());
        number.with_context(|| format!("{name} is {value} in {}", self.path.display()))
    }

    /// A set of bits in hexadecimal digits.
    ///
    /// # Errors
    /// No such line, or something else.
    pub fn bits(&self, name: &str) -> Result<u64> {
        let value = self.text(name)?;
        u64::from_str_radix(value, 16).with_context(|| format!("{name} is {value}"))
    }
}

fn process(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_vitals() {
        let own = i32::try_from(std::process::id()).unwrap();
        let vitals = Vitals::of(own).unwrap();
        assert!(vitals.descriptors >= 3 && vitals.resident_kb >= vitals.anonymous_kb);
        assert!(!threads(own).is_empty());
        processor_time(own).unwrap();
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 5";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_that_is_gone_is_named() {
        let error = Vitals::of(i32::MAX).unwrap_err();
        assert!(format!("{error:#}").contains(&i32::MAX.to_string()), "{error:#}");
    }
}
