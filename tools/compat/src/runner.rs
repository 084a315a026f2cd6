//! Runs families of cases on clusters and compares.
//!
//! Role: one cluster per family and column, so that what a case leaves behind reaches only the
//! cases after it in the same file; several at a time, because starting is mostly waiting.
//! Invariants
//! - A step that prepares (`setup`, `await`) and fails makes the case fail, never pass.
//! - A case with a gap passes only by failing in the comparison: style "a gap that closes by
//!   accident is found the same day".

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::case::{Case, Family, Step, StepKind};
use crate::cluster::{Cluster, Config};
use crate::column::Column;
use crate::expected::{Expected, difference, render_run};
use crate::normalise::{Place, normalise};
use crate::prerequisite::C_HELPERS;
use crate::run::{RunOutput, run, wait_until};

/// Longest time for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Clusters running at once: their time is mostly waiting, also on two cores.
const JOBS: usize = 6;

/// How one family did in one column.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases whose output was equal.
    pub passed: usize,
    /// Cases with a gap that failed, as they should.
    pub gaps: usize,
    /// What went wrong, ready to print, one entry per case.
    pub failures: Vec<String>,
    /// New expected output, when the column refreshes.
    pub refreshed: Option<Expected>,
}

/// One family to run in one column.
#[derive(Debug)]
pub struct Task<'a> {
    /// The cases.
    pub family: &'a Family,
    /// Names of the cases to run; all when empty.
    pub only: Vec<String>,
    /// What the C tool printed.
    pub expected: &'a Expected,
    /// Tool and daemon.
    pub column: &'a Column,
}

/// Runs all tasks, `JOBS` at a time; reports in the order of the tasks.
#[must_use]
pub fn run_all(tasks: &[Task<'_>]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports: Vec<_> = tasks.iter().map(|_| Mutex::new(Report::default())).collect();
    thread::scope(|scope| {
        for _ in 0..JOBS.min(tasks.len()) {
            scope.spawn(|| {
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run_task(task);
                    let slot =
                        reports.iter().zip(tasks).find(|(_, other)| std::ptr::eq(*other, task));
                    if let Some((slot, _)) = slot {
                        *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = report;
                    }
                }
            });
        }
    });
    let inner =
        |slot: Mutex<Report>| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    reports.into_iter().map(inner).collect()
}

fn run_task(task: &Task<'_>) -> Report {
    let mut report = Report::default();
    if let Err(error) = run_family(task, &mut report) {
        let (family, column) = (&task.family.name, task.column);
        report.failures.push(format!("{family} ({column}): {error:#}"));
    }
    report
}

fn run_family(task: &Task<'_>, report: &mut Report) -> Result<()> {
    let family = task.family;
    let needs = &family.cluster;
    let mut config = Config::new(needs.nodes).all(&task.column.daemon).first_leads();
    config.cluster_lock = needs.lock;
    config.tunables.clone_from(&needs.tunables);
    if needs.public_addresses {
        config = config.with_public_addresses();
    }
    let cluster = Cluster::start(config)?;
    let stage = Stage { column: task.column, place: place_of(&cluster), cluster: &cluster };
    for step in &family.setup {
        stage.prepare(step)?;
    }
    let mut refreshed = Expected::default();
    let wanted = |case: &&Case| task.only.is_empty() || task.only.contains(&case.name);
    for case in family.cases.iter().filter(wanted) {
        let found = stage.play(case);
        if task.column.refresh {
            refreshed.set(&case.name, found.with_context(|| case.name.clone())?);
            report.passed += 1;
            continue;
        }
        let verdict = judge(task, case, found);
        match (verdict, task.column.gap(case)) {
            (Ok(()), None) => report.passed += 1,
            (Err(_), Some(_)) => report.gaps += 1,
            (Ok(()), Some(gap)) => report.failures.push(format!(
                "{}/{} ({}): {gap} is closed: remove the line from the case and the row from COMPAT.md",
                family.name, case.name, task.column
            )),
            (Err(reason), None) => report
                .failures
                .push(format!("{}/{} ({}): {reason}", family.name, case.name, task.column)),
        }
    }
    report.refreshed = task.column.refresh.then_some(refreshed);
    Ok(())
}

fn judge(task: &Task<'_>, case: &Case, found: Result<String>) -> Result<(), String> {
    let found = found.map_err(|error| format!("{error:#}"))?;
    let expected = task.expected.block(&case.name);
    let expected = expected
        .ok_or_else(|| format!("no expected output; make it with {}=1", crate::column::REFRESH))?;
    if expected == found { Ok(()) } else { Err(difference(expected, &found)) }
}

fn place_of(cluster: &Cluster) -> Place {
    Place {
        directory: cluster.directory().to_path_buf(),
        addresses: cluster.nodes().map(|node| node.address()).collect(),
    }
}

/// A running cluster with the tool that is tested on it.
struct Stage<'a> {
    cluster: &'a Cluster,
    column: &'a Column,
    place: Place,
}

impl Stage<'_> {
    /// Runs the steps of a case; the text of its `run:` steps.
    fn play(&self, case: &Case) -> Result<String> {
        let result = self.play_steps(case);
        let mut cleaned = Ok(());
        for step in case.steps.iter().filter(|step| step.kind == StepKind::Cleanup) {
            cleaned = cleaned.and(self.prepare(step));
        }
        result.and_then(|text| cleaned.map(|()| text))
    }

    fn play_steps(&self, case: &Case) -> Result<String> {
        let mut text = String::new();
        for step in &case.steps {
            match step.kind {
                StepKind::Setup | StepKind::Await => self.prepare(step)?,
                StepKind::Run => {
                    let output = self.run_tested(step)?;
                    let equal = |text: &str| normalise(text, &self.place, &case.normalise);
                    let output = RunOutput {
                        stdout: equal(&output.stdout),
                        stderr: equal(&output.stderr),
                        status: output.status,
                    };
                    text.push_str(&render_run(step, &output));
                }
                StepKind::Cleanup => {}
            }
        }
        Ok(text)
    }

    /// A step that is not compared: the C tool.
    fn prepare(&self, step: &Step) -> Result<()> {
        let shell = || self.shell(step, None, Path::new(C_HELPERS));
        if step.kind == StepKind::Await {
            return wait_until(&step.line, STEP_TIMEOUT, || {
                shell().ok().filter(RunOutput::success).map(drop)
            });
        }
        let output = shell()?;
        if !output.success() {
            bail!("{:?}@{}: {}: {output}", step.kind, step.node, step.line);
        }
        Ok(())
    }

    fn run_tested(&self, step: &Step) -> Result<RunOutput> {
        self.shell(step, self.column.tool.as_deref(), self.column.tool_helpers())
    }

    /// `/bin/sh -c LINE` in the environment of the step's node. `ctdb` is `tool`, `$HELPERS` the
    /// directory of the helper programs, `$SHARED` a directory that all nodes see.
    fn shell(&self, step: &Step, tool: Option<&Path>, helpers: &Path) -> Result<RunOutput> {
        let node = self.cluster.node(step.node);
        let mut command = node.command("/bin/sh");
        let mut path = String::new();
        if let Some(directory) = tool.and_then(Path::parent) {
            let _ = write!(path, "{}:", directory.display());
        }
        path.push_str("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("PATH", path)
            .env("CTDB_TEST_HELPER_BINDIR", helpers)
            .env("HELPERS", helpers)
            .env("SHARED", self.cluster.directory())
            .args(["-c", &step.line]);
        run(&mut command, STEP_TIMEOUT)
    }
}
