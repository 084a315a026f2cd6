//! A pick of smbtorture whose state is in clustered databases; all of it: `smbtorture-list`.

use anyhow::{Result, ensure};
use ringmaster_e2e::{
    Lab,
    share::smbtorture,
    torture::{LIST, List, Verdict, verdicts},
};
use ringmaster_xtask::demo::wait;

/// Suites that are quick on the whole.
const SUITES: &[&str] = &[
    "smb2.lock",
    "smb2.create",
    "smb2.rename",
    "smb2.read",
    "smb2.dir",
    "smb2.compound",
    "smb2.compound_async",
];
/// What of them takes seconds.
const SLOW: &[&str] = &["smb2.dir.many", "smb2.dir.large-files", "smb2.rename.rename_dir_bench"];
/// The longest that the pick may take, in seconds.
const LIMIT_S: u32 = 300;

pub(super) fn pick(lab: &Lab) -> Result<()> {
    let list = List::parse(LIST)?;
    let tests = list.pick(SUITES, SLOW);
    ensure!(tests.len() > 60, "the pick is {tests:?}");
    all_pass(lab, &tests)?;
    println!("    {} tests", tests.len());
    Ok(())
}

/// Locks are given and refused as they should be.
pub(super) fn locks(lab: &Lab) -> Result<()> {
    all_pass(lab, &List::parse(LIST)?.pick(&["smb2.lock"], &[]))
}

fn all_pass(lab: &Lab, tests: &[&str]) -> Result<()> {
    let output = wait::output("smbtorture", &mut smbtorture(lab, LIMIT_S, 0, tests))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let verdicts = verdicts(&printed);
    let passed = |test: &&str| verdicts.iter().any(|(name, v)| name == test && *v == Verdict::Pass);
    let missing: Vec<&str> = tests.iter().copied().filter(|test| !passed(test)).collect();
    ensure!(missing.is_empty(), "passes on C's daemon, not here: {missing:?}\n{printed}");
    Ok(())
}
