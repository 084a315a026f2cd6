//! `ctdb-event`: script files, and events through Debian's `ctdb-eventd`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::world::{Pair, World, nothing, output, pair, spawn, words};

fn programs() -> Option<Pair> {
    pair("/usr/libexec/ctdb/ctdb-event", env!("CARGO_BIN_EXE_ctdb-event"))
}

fn scripts(world: &World) {
    let shipped = world.base().join("share/events/legacy");
    world.file("share/events/legacy/10.a.script", "#!/bin/sh\n", 0o755);
    world.file("share/events/legacy/20.b.script", "#!/bin/sh\n", 0o755);
    world.file("share/events/legacy/30.c.script", "#!/bin/sh\n", 0o644);
    world.file("share/events/legacy/README", "", 0o644);
    world.link("events/legacy/10.a.script", shipped.join("10.a.script"));
    world.link("events/legacy/20.b.script", "../../share/events/legacy/20.b.script");
    world.link("events/legacy/22.other.script", shipped.join("20.b.script"));
    world.link("events/legacy/91.dangling.script", "/nonexistent");
    world.file("events/legacy/50.local.script", "#!/bin/sh\n", 0o755);
    world.file("events/legacy/60.off.script", "#!/bin/sh\n", 0o4600);
    world.file("events/legacy/61.odd.script", "#!/bin/sh\n", 0o001);
    world.file("events/legacy/xx.script", "#!/bin/sh\n", 0o755);
    world.file("events/legacy/80.backup.script~", "", 0o755);
    std::fs::create_dir(world.base().join("events/legacy/90.dir.script")).unwrap();
    world.file("events/emptyboth/x", "", 0o644);
    world.file("share/events/emptyboth/x", "", 0o644);
    world.file("share/events/shippedonly/10.x.script", "", 0o755);
    world.file("events/localonly/10.x.script", "", 0o755);
}

#[test]
fn usage_and_script_commands_answer_and_leave_files_as_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    for line in [
        "",
        "-h",
        "-?",
        "--help",
        "-x",
        "-d",
        "run",
        "run -h",
        "run 5 a",
        "status",
        "status a",
        "status a b c",
        "script",
        "script foo",
        "script list",
        "script list a b",
        "script enable",
        "script enable a",
        "script disable a b c",
        "run 10 legacy monitor",
        "status legacy monitor",
        "-d DEBUG status legacy monitor",
        "script list legacy",
        "-d NOTICE script list legacy",
        "script list nosuch",
        "script list emptyboth",
        "script list shippedonly",
        "script list localonly",
        "script list \"\"",
        "script list /",
    ] {
        world.compare(&pair, &words(line), &scripts);
    }
    for action in ["enable", "disable"] {
        for name in [
            "10.a",
            "20.b",
            "30.c",
            "20.b.script",
            "22.other",
            "50.local",
            "60.off",
            "61.odd",
            "90.dir",
            "91.dangling",
            "99.nosuch",
            "xx",
            "nosuch",
            "",
            "/x",
            "../x",
            "1.a",
        ] {
            world.compare(&pair, &["-d", "NOTICE", "script", action, "legacy", name], &scripts);
        }
        world.compare(&pair, &["script", action, "shippedonly", "10.x"], &scripts);
        world.compare(&pair, &["script", action, "nosuch", "10.a"], &scripts);
    }
}

/// Debian's event daemon, watching a process that lives as long as the test.
struct Eventd(Child);

impl Eventd {
    fn start(world: &World) -> Self {
        // It says on a descriptor of its own when it is ready.
        let script = "exec /usr/libexec/ctdb/ctdb-eventd -P \"$0\" -S 9 9>&1 >/dev/null";
        let mut command = world.command(Path::new("/bin/sh"), &[]);
        command.args(["-c", script, &std::process::id().to_string()]);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut ready = [0xff; 4];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(ready, [0; 4]);
        Self(child)
    }
}

impl Drop for Eventd {
    fn drop(&mut self) {
        output(Command::new("kill").arg(self.0.id().to_string()));
        let _ = self.0.wait();
    }
}

fn event_scripts(world: &World) {
    let log = format!("[logging]\nlocation = file:{}\n", world.base().join("log").display());
    world.file("ctdb.conf", log, 0o644);
    world.file("events/legacy/10.ok.script", "#!/bin/sh\necho fine\n", 0o755);
    let body = "#!/bin/sh\necho hi\ncase $1 in fail) exit 3;; slow) exec sleep 1000;; \
                killed) kill -9 $$;; nosuch) echo \"$@\";; esac\n";
    world.file("events/legacy/20.b.script", body, 0o755);
    world.file("events/legacy/30.off.script", "#!/bin/sh\n", 0o644);
    world.file("events/legacy/40.c.script", "#!/bin/sh\nprintf 'a\\nb'\n", 0o755);
    world.file("events/empty/x", "", 0o644);
    world.file("events/broken/10.x.script", "#!/nonexistent\n", 0o755);
}

/// Everything the program says, without durations.
fn said(world: &World, program: &Path, line: &str) -> (String, String, Option<i32>) {
    let args: Vec<&OsStr> = words(line).into_iter().map(OsStr::new).collect();
    let output = output(&mut world.command(program, &args));
    let stdout = String::from_utf8(output.stdout).unwrap();
    (stdout, String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
fn events_run_and_are_reported_as_by_debians() {
    let Some(pair) = programs() else { return };
    let world = World::new();
    world.rebuild(&event_scripts);
    let _eventd = Eventd::start(&world);
    for run in [
        "run 10 legacy ok a b",
        "run 10 legacy fail",
        "run 1 legacy slow",
        "run 10 legacy killed",
        "run 10 nosuch ok",
        "run 10 empty ok",
        "run 10 broken ok",
        "run x legacy ok",
        "run 0 legacy ok",
        "-d NOTICE run 10 legacy fail",
        "run -- -1 legacy ok",
        "run 10x legacy ok",
    ] {
        let ours = said(&world, &pair.ours, run);
        assert_eq!(ours, said(&world, &pair.theirs, run), "{run}");
    }
    // Nothing runs in between, so both see the same times.
    for event in ["ok", "fail", "slow", "killed", "never"] {
        let line = format!("-d NOTICE status legacy {event}");
        assert_eq!(said(&world, &pair.ours, &line), said(&world, &pair.theirs, &line), "{line}");
    }
    for line in ["status nosuch ok", "status empty ok", "status broken ok"] {
        assert_eq!(said(&world, &pair.ours, line), said(&world, &pair.theirs, line), "{line}");
    }
}

/// Request in, everything that is sent before the connection is closed out.
type Reply = fn(&[u8]) -> Vec<u8>;

/// Answers each connection with one made-up packet.
struct FakeDaemon;

impl FakeDaemon {
    fn answer(world: &World, connections: usize, reply: Reply) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(world.base().join("run/eventd.socket")).unwrap();
        thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).unwrap();
                stream.write_all(&reply(&request[..count])).unwrap();
            }
        })
    }
}

fn packet(request: &[u8], reqid_add: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(12 + body.len()).unwrap();
    let mut packet = [&len.to_le_bytes()[..], &[0; 4], &request[8..12], body].concat();
    packet[8] = packet[8].wrapping_add(reqid_add);
    packet
}

fn result(request: &[u8], result: i32) -> Vec<u8> {
    packet(request, 0, &[&request[12..16], &result.to_le_bytes()[..]].concat())
}

#[test]
fn odd_answers_of_a_daemon_are_taken_as_by_debians() {
    let Some(pair) = programs() else { return };
    let replies: [Reply; 12] = [
        |_| Vec::new(),
        |request| result(request, 5),
        |request| result(request, 22),
        |request| result(request, 2),
        |request| result(request, 8),
        |request| result(request, 110),
        |request| result(request, 125),
        |request| result(request, -5),
        |request| result(request, 300),
        |request| packet(request, 0, b"abc"),
        |request| packet(request, 1, &[&request[12..16], &[0; 4][..]].concat()),
        |request| [packet(request, 1, b"abc"), result(request, 8)].concat(),
    ];
    for (index, reply) in replies.into_iter().enumerate() {
        for line in ["-d NOTICE run 5 a b", "run 5 a b c d", "status a b", "-d NOTICE status a b"] {
            let world = World::new();
            world.rebuild(&nothing);
            let daemon = FakeDaemon::answer(&world, 2, reply);
            let ours = said(&world, &pair.ours, line);
            assert_eq!(ours, said(&world, &pair.theirs, line), "{line}, reply {index}");
            daemon.join().unwrap();
        }
    }
}
