//! `ctdb-config`, with fixed files and with random ones.

use super::world::{Pair, World, nothing, pair, words};

fn programs() -> Option<Pair> {
    pair("/usr/libexec/ctdb/ctdb-config", env!("CARGO_BIN_EXE_ctdb-config"))
}

#[test]
fn every_command_line_of_ctdb_config_answers_as_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    let file = |world: &World| {
        world.file("ctdb.conf", "[cluster]\nrecovery lock = a\nx = y\nleader timeout = 7\n", 0o644);
    };
    for line in [
        "",
        "-h",
        "-?",
        "--help",
        "--usage",
        "get -h",
        "dump --help",
        "get",
        "get a",
        "get a b c",
        "dump x",
        "validate y",
        "-d",
        "--debug",
        "-x",
        "--usage=x",
        "-?x",
        "-xh",
        "-h foo",
        "dump",
        "validate",
        "-d foo dump",
        "-d DEBUG dump",
        "-dDEBUG validate",
        "-d=info dump",
        "--debug=n dump",
        "-d 2 dump",
        "-d 08 dump",
        "-d 11 dump",
        "-d -h validate",
        "get -d WARNING cluster transport",
    ] {
        world.compare(&pair, &words(line), &file);
    }
    for (section, key) in [
        ("cluster", "recovery lock"),
        ("CLUSTER", "leader timeout"),
        ("cluster", "Transport"),
        ("cluster", "cluster lock"),
        ("nosuch", "x"),
        ("logging", "log level"),
        ("database", "tdb mutexes"),
        ("legacy", "start as stopped"),
        ("", ""),
    ] {
        world.compare(&pair, &["get", section, key], &file);
    }
    world.compare(&pair, &["-d", "NOTICE", "validate"], &nothing);
    world.compare(&pair, &["-d", "NOTICE", "dump"], &nothing);
}

#[test]
fn a_configuration_file_that_cannot_be_read_ends_as_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    let directory = |world: &World| std::fs::create_dir(world.base().join("ctdb.conf")).unwrap();
    let link_loop = |world: &World| world.link("ctdb.conf", "ctdb.conf");
    let dangling = |world: &World| world.link("ctdb.conf", "/nonexistent/x");
    let base_is_file = |world: &World| {
        std::fs::remove_dir_all(world.base()).unwrap();
        std::fs::write(world.base(), "").unwrap();
    };
    for line in ["dump", "validate", "get cluster transport", "get a b"] {
        world.compare(&pair, &words(line), &directory);
        world.compare(&pair, &words(line), &link_loop);
        world.compare(&pair, &words(line), &dangling);
        world.compare(&pair, &words(line), &base_is_file);
    }
}

#[test]
fn every_kind_of_bad_value_is_reported_as_by_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    for content in [
        "[cluster]\ntransport = ib\nleader timeout = 0\n",
        "[CLUSTER]\nfoo=1\n[foO]\na=1\n",
        "a=b\n[cluster]\nCluster lock=3\n",
        "[cluster]\nnode address = localhost\nleader timeout = -1\n",
        "[cluster]\nnode address = 1.2.3.4:5\n",
        "[cluster]\nnode address = ::ffff:1.2.3.4\nleader timeout = +0x7\n",
        "[cluster]\nleader timeout = 2147483648\nleader timeout =\n",
        "[cluster]\nleader timeout = 5s\nleader timeout = 08\n",
        "[legacy]\nscript log level = foo\nstart as stopped = on\n",
        "[logging]\nlog level = foo\nlocation = foo\n",
        "[logging]\nlocation = file:/nonexistent/x\n",
        "[logging]\nlocation = syslog:foo\n",
        "[logging]\nlocation = file:/tmp/nod:x/y\nlog level = err\n",
        "[database]\nvolatile database directory = /nonexistent\n",
        "[database]\nlock debug script = plain\n[event]\ndebug script = missing\n",
        "[database]\nlock debug script = /a/b/good\n[event]\ndebug script = sub/\n",
        "[database]\nlock debug script = dangling\n[event]\ndebug script = /\n",
        "[cluster\nleader timeout = 7\n",
        "[cluster]\nleader timeout = 7\n=x\n",
        "[cluster]\ntransport = ib\n=x\n",
        "[failover]\ndisabled = Yes\n[legacy]\nrealtime scheduling = nO\n",
        "[cluster]\ncluster lock = !/x \"a  b\" \\\n   c # d\n",
        "[logging]\nlog level = ERROR\n[cluster]\nleader timeout = 5\ntransport = tcp\n",
        "[cluster]\ncluster lock = \u{e9}\u{1}\n\u{e9} = 1\n",
    ] {
        let files = |world: &World| {
            world.file("ctdb.conf", content, 0o644);
            world.file("plain", "", 0o644);
            world.file("good", "", 0o755);
            world.link("dangling", "/nonexistent");
            std::fs::create_dir(world.base().join("sub")).unwrap();
        };
        for line in ["-d DEBUG validate", "-d DEBUG dump", "get cluster transport"] {
            world.compare(&pair, &words(line), &files);
        }
    }
}

#[test]
fn random_files_are_read_as_by_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    let mut random = Random(0x5EED);
    for _ in 0..60 {
        let content = random.file();
        let files = |world: &World| world.file("ctdb.conf", &content, 0o644);
        world.compare(&pair, &["-d", "DEBUG", "validate"], &files);
        world.compare(&pair, &["dump"], &files);
    }
}

/// Xorshift; the seed makes a failure repeatable.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).unwrap()
    }

    fn file(&mut self) -> Vec<u8> {
        const WORDS: [&[u8]; 30] = [
            b"[cluster]\n",
            b"[Legacy]\n",
            b"[logging]\n",
            b"[x y]\n",
            b"[",
            b"]",
            b"=",
            b" = ",
            b" ",
            b"\t",
            b"\n",
            b"\n",
            b"\n",
            b"\\\n",
            b"\\",
            b"#",
            b";",
            b"\r\n",
            b"\0",
            b"cluster lock",
            b"leader timeout",
            b"start as stopped",
            b"log level",
            b"true",
            b"0x10",
            b"7",
            b"INFO",
            b"a  b",
            b"\xe9",
            b"\x0b",
        ];
        let mut content = b"[cluster]\n".to_vec();
        for _ in 0..4 + self.below(30) {
            content.extend_from_slice(WORDS[self.below(WORDS.len())]);
        }
        content
    }
}
