//! All case files, in every column that can run. `cargo test -p ringmaster-compat --test cases --
//! FAMILY[/CASE]...` runs a part.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ringmaster_compat::case::Family;
use ringmaster_compat::cluster::Subject;
use ringmaster_compat::column::columns;
use ringmaster_compat::expected::Expected;
use ringmaster_compat::prerequisite;
use ringmaster_compat::runner::{Report, Task, run_all};

fn main() -> ExitCode {
    if let Some(reason) = prerequisite::missing_for_c_cluster() {
        prerequisite::skip(&reason);
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let filters: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut families = read_families(&root.join("cases"))?;
    let alone: Vec<_> = families.iter().filter_map(Family::alone).collect();
    families.extend(alone);
    let expected_of = |family: &Family| {
        let path = root.join("expected").join(format!("{}.expected", family.name));
        Expected::parse(&fs::read_to_string(path).unwrap_or_default())
    };
    let expected: Vec<_> = families.iter().map(expected_of).collect();
    let (columns, left_out) = columns();
    for line in left_out {
        println!("skipped: {line}");
    }
    let mut tasks = Vec::new();
    for column in &columns {
        let ours = matches!(column.daemon, Subject::Ours { .. });
        let mut beyond: BTreeMap<&str, usize> = BTreeMap::new();
        for (family, expected) in families.iter().zip(&expected) {
            let Some(only) = selected(family, &filters) else { continue };
            // With C's daemon the whole family says more than the part of it that is for one node.
            if family.name.ends_with("-alone") && !ours && column.tool.is_some() {
                continue;
            }
            match family.cluster.beyond_our_daemon().filter(|_| ours) {
                Some(need) => *beyond.entry(need).or_default() += family.cases.len(),
                None => tasks.push(Task { family, only, expected, column }),
            }
        }
        for (need, cases) in beyond {
            println!("left out: {column}: {cases} cases need {need}");
        }
    }
    let reports = run_all(&tasks);
    for (task, report) in tasks.iter().zip(&reports) {
        if let Some(refreshed) = &report.refreshed {
            write_expected(root, task, refreshed)?;
        }
    }
    Ok(print(&tasks, &reports))
}

fn read_families(directory: &Path) -> Result<Vec<Family>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path)?;
        Family::parse(&name, &text).with_context(|| path.display().to_string())
    };
    paths.iter().map(read).collect()
}

/// The cases of `family` that the filters want: `None` for none, empty for all.
fn selected(family: &Family, filters: &[String]) -> Option<Vec<String>> {
    if filters.is_empty() || filters.contains(&family.name) {
        return Some(Vec::new());
    }
    let prefix = format!("{}/", family.name);
    let cases: Vec<_> = filters
        .iter()
        .filter_map(|filter| filter.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect();
    (!cases.is_empty()).then_some(cases)
}

fn write_expected(root: &Path, task: &Task<'_>, refreshed: &Expected) -> Result<()> {
    let mut merged = task.expected.clone();
    for case in &task.family.cases {
        if let Some(block) = refreshed.block(&case.name) {
            merged.set(&case.name, block.to_owned());
        }
    }
    let directory = root.join("expected");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.expected", task.family.name));
    fs::write(&path, merged.render(&task.family.cases))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints failures and one line of counts per column; whether all is well.
fn print(tasks: &[Task<'_>], reports: &[Report]) -> bool {
    let mut totals: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for (task, report) in tasks.iter().zip(reports) {
        for failure in &report.failures {
            println!("FAILED {failure}");
        }
        let total = totals.entry(task.column.to_string()).or_default();
        total[0] += report.passed;
        total[1] += report.gaps;
        total[2] += report.failures.len();
    }
    for (column, [passed, gaps, failed]) in &totals {
        let run = passed + gaps + failed;
        println!("{column}: {run} cases run, {passed} equal, {gaps} known gaps, {failed} failed");
    }
    totals.values().all(|[_, _, failed]| *failed == 0)
}
