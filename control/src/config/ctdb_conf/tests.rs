//! Expected texts are what `ctdb-config` 4.17 prints for the same file.

use std::ffi::OsStr;

use super::super::finding;
use super::*;

/// A file system in which every directory exists and every script can run.
pub(crate) struct Anything;

impl Surroundings for Anything {
    fn is_directory(&self, _: &Path) -> bool {
        true
    }
    fn script_state(&self, _: &Path) -> ScriptState {
        ScriptState::Executable
    }
    fn etc_dir(&self) -> PathBuf {
        "/etc/ctdb".into()
    }
}

/// A file system in which nothing exists but `/`.
struct Nothing;

impl Surroundings for Nothing {
    fn is_directory(&self, path: &Path) -> bool {
        path == Path::new("/")
    }
    fn script_state(&self, path: &Path) -> ScriptState {
        match path.file_name().and_then(OsStr::to_str) {
            Some("plain") => ScriptState::NotExecutable,
            Some("dir") => ScriptState::NotAFile,
            _ => ScriptState::Missing,
        }
    }
    fn etc_dir(&self) -> PathBuf {
        "/etc/ctdb".into()
    }
}

pub(crate) fn load_leniently(text: &str, around: &dyn Surroundings) -> Loaded {
    load(text.as_bytes(), Strictness::Lenient, LogLevel::Notice, around)
}

fn c_output(loaded: &Loaded, level: LogLevel) -> String {
    finding::c_lines(&loaded.findings, level)
        .map(|line| String::from_utf8(line.to_vec()).unwrap() + "\n")
        .collect()
}

fn strict(text: &str) -> (bool, String) {
    let loaded = load(text.as_bytes(), Strictness::Strict, LogLevel::Error, &Nothing);
    (loaded.refused, c_output(&loaded, LogLevel::Error))
}

#[test]
fn a_strict_load_names_everything_unknown_and_goes_on() {
    assert_eq!(
        strict("x=1\n[cluster]\n foo = 1\n[bar]\nx=y\n  a  b   = c   d  \n"),
        (
            true,
            "conf: unknown section for option \"x\"\n\
             conf: unknown option [cluster] -> \"foo\"\n\
             conf: unknown section [bar]\n\
             conf: unknown section for option \"x\"\n\
             conf: unknown section for option \"a b\"\n"
                .to_owned()
        )
    );
}

#[test]
fn a_lenient_load_ignores_the_unknown_and_says_so_at_debug_level() {
    let loaded = load_leniently("[bar]\nx=y\n[cluster]\nfoo=1\nleader timeout = 7\n", &Nothing);
    assert!(!loaded.refused);
    assert_eq!(c_output(&loaded, LogLevel::Info), "");
    assert_eq!(
        c_output(&loaded, LogLevel::Debug),
        "conf: ignoring unknown section [bar]\n\
         conf: unknown section for option \"x\"\n\
         conf: unknown option [cluster] -> \"foo\"\n"
    );
    assert_eq!(loaded.table.get("CLUSTER", "leader timeout"), Some(&Value::Number(7)));
}

#[test]
fn every_bad_value_is_named_in_the_order_of_the_file() {
    let text = "[CLUSTER]\ntransport = ib\nnode address =\nleader timeout = -1\n\
                leader timeout = 0\nnode address = localhost\n[legacy]\nscript log level = foo\n\
                [logging]\nlog level = foo\nlocation = file:/none/x\n[database]\n\
                tdb mutexes = 5\nvolatile database directory = /none\n\
                lock debug script = /a/plain\n[event]\ndebug script = dir\ndebug script = /\n";
    assert_eq!(
        strict(text),
        (
            true,
            "Invalid value for [cluster] -> transport = ib\n\
             conf: validation for option \"transport\" failed\n\
             conf: empty value [cluster] -> \"node address\"\n\
             conf: invalid value [cluster] -> \"leader timeout\" = \"-1\"\n\
             Invalid value for [cluster] -> leader timeout = 0\n\
             conf: validation for option \"leader timeout\" failed\n\
             Invalid value for [cluster] -> node address = localhost\n\
             conf: validation for option \"node address\" failed\n\
             Invalid value for [legacy] -> script log level = foo\n\
             conf: validation for option \"script log level\" failed\n\
             conf: validation for option \"log level\" failed\n\
             conf: validation for option \"location\" failed\n\
             conf: invalid value [database] -> \"tdb mutexes\" = \"5\"\n\
             volatile database directory \"/none\" does not exist\n\
             conf: validation for option \"volatile database directory\" failed\n\
             lock debug script /etc/ctdb/plain is not executable\n\
             conf: validation for option \"lock debug script\" failed\n\
             debug script /etc/ctdb/dir is not a file\n\
             conf: validation for option \"debug script\" failed\n\
             debug script /etc/ctdb// does not exist\n\
             conf: validation for option \"debug script\" failed\n"
                .to_owned()
        )
    );
}

#[test]
fn one_bad_value_leaves_every_option_at_its_default() {
    let loaded = load_leniently("[cluster]\nleader timeout = 7\ntransport = ib\n", &Anything);
    assert!(loaded.refused);
    assert_eq!(loaded.table, Table::defaults(LogLevel::Notice));
}

#[test]
fn an_unclosed_section_empties_the_file_without_a_word_from_c_but_not_from_us() {
    let loaded = load_leniently("[cluster]\nleader timeout = 7\n[legacy\n", &Anything);
    assert!(!loaded.refused);
    assert_eq!(loaded.table, Table::defaults(LogLevel::Notice));
    assert_eq!(c_output(&loaded, LogLevel::Debug), "");
    assert_eq!(loaded.findings[0].line, Some(3));
    assert_eq!(loaded.findings[0].severity, Severity::Error);
}

#[test]
fn a_bad_value_before_the_place_where_reading_stops_still_refuses_the_file() {
    assert!(load_leniently("[cluster]\ntransport = ib\n=x\n", &Anything).refused);
    let obstacle = |text| load_leniently(text, &Anything).obstacle.and_then(|one| one.line);
    assert_eq!(obstacle("[nowhere]\nx = y\n[cluster]\ntransport = ib\n=x\n"), Some(4));
    assert_eq!(obstacle("[nowhere]\n[cluster\n"), Some(2));
    assert_eq!(obstacle("[nowhere]\nx = y\nbare\n"), None);
}

#[test]
fn dump_marks_what_is_default_and_leaves_out_newer_options() {
    let loaded = load_leniently(
        "[cluster]\nleader timeout = 5\ncluster lock = bar\n[failover]\ndisabled = yes\n",
        &Anything,
    );
    let dump = String::from_utf8(loaded.table.dump()).unwrap();
    assert!(dump.contains("\t# leader timeout = 5\n"), "{dump}");
    assert!(dump.contains("\tcluster lock = bar\n\t# recovery lock = \n"), "{dump}");
    assert!(dump.contains("[failover]\n\tdisabled = true\n[legacy]\n"), "{dump}");
    assert!(!dump.contains("nodes list"), "{dump}");
}

#[test]
fn a_newer_option_is_honoured_and_dumped_once_set() {
    let loaded = load_leniently("[cluster]\nnodes list = !/x y\n", &Anything);
    let dump = String::from_utf8(loaded.table.dump()).unwrap();
    assert!(dump.contains("\tnodes list = !/x y\n"), "{dump}");
}

#[test]
fn the_deprecated_lock_name_is_a_warning_of_c() {
    let loaded = load_leniently("[cluster]\nrecovery lock = x\n", &Anything);
    assert_eq!(
        c_output(&loaded, LogLevel::Warning),
        "Configuration option [cluster] -> recovery lock is deprecated\n"
    );
}

#[test]
fn the_diagnosis_names_the_line_and_the_remedy() {
    let text = "[cluster]\nClusterlock = /x\nCluster lock = /x # shared\n[legacy]\n\
                recmaster capability = false\nleader capability = no\nstart as stoped = true\n\
                [databse]\n";
    let loaded = load(text.as_bytes(), Strictness::Strict, LogLevel::Notice, &Anything);
    let shown: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 2: error: [cluster] has no option \"Clusterlock\"; write \"cluster lock\" (the \
             case of letters counts)",
            "line 3: error: [cluster] has no option \"Cluster lock\"; write \"cluster lock\" (the \
             case of letters counts)",
            "line 5: error: [legacy] has no option \"recmaster capability\"; it is called \
             \"leader capability\" in [cluster] now",
            "line 6: error: [legacy] has no option \"leader capability\"; it belongs to [cluster]",
            "line 7: error: [legacy] has no option \"start as stoped\"; write \"start as \
             stopped\" (the case of letters counts)",
            "line 8: error: there is no section [databse]; write [database]",
        ]
    );
}

#[test]
fn what_c_takes_silently_is_a_warning_of_ours() {
    let text = "[cluster]\ncluster lock = \"/x\"\nleader timeout = 010\nleader timeout = 5s\n\
                nodes list = /n # comment\nnonsense\n";
    let loaded = load_leniently(text, &Anything);
    assert!(!loaded.refused);
    let lines: Vec<Option<u32>> = loaded.findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(4), Some(4), Some(5), Some(6)]);
    assert!(loaded.findings.iter().all(|finding| finding.severity == Severity::Warning));
}
