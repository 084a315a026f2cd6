use super::*;

fn asker(reqid: u32) -> Asker {
    Asker { connection: 1, reqid }
}

fn script(name: &str, enabled: bool) -> Script {
    Script { name: name.into(), path: PathBuf::from(format!("/e/{name}.script")), enabled }
}

struct Subject {
    component: Component,
    now_ms: u64,
}

impl Subject {
    fn new() -> Self {
        Self { component: Component::new(), now_ms: 1_000 }
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let wall = Timeval { seconds: i64::try_from(self.now_ms / 1_000).unwrap(), micros: 0 };
        self.component.handle(self.now_ms, wall, event, &mut out);
        out
    }

    fn run(&mut self, reqid: u32, event: &str) -> Vec<Action> {
        let (event, args) = (event.to_owned(), vec!["a".to_owned()]);
        self.handle(Event::Run { asker: asker(reqid), event, args, timeout_s: 30, run_all: false })
    }

    fn listed(&mut self, names: &[&str]) -> Vec<Action> {
        let scripts = names.iter().map(|name| script(name, !name.contains("off"))).collect();
        self.handle(Event::Listed(Ok(scripts)))
    }

    fn ended(&mut self, ending: Ending) -> Vec<Action> {
        let at = Timeval { seconds: 9, micros: 0 };
        self.handle(Event::Ended { ending, output: b"said".to_vec(), at })
    }

    fn results(&self, event: &str) -> (i32, Vec<(String, i32)>) {
        let history = self.component.history(event).expect("it ran");
        let scripts =
            history.scripts.iter().map(|record| (record.name.clone(), record.result)).collect();
        (history.summary, scripts)
    }
}

fn start(name: &str, event: &str) -> Action {
    let (event, args) = (event.to_owned(), vec!["a".to_owned()]);
    Action::Start { script: script(name, true), event, args }
}

fn answer(reqid: u32, result: i32) -> Action {
    Action::Answer { asker: asker(reqid), result }
}

fn named(pairs: &[(&str, i32)]) -> Vec<(String, i32)> {
    pairs.iter().map(|(name, result)| ((*name).to_owned(), *result)).collect()
}

#[test]
fn scripts_run_one_after_the_other_and_disabled_ones_are_passed_over() {
    let mut subject = Subject::new();
    assert_eq!(subject.run(1, "startup"), [Action::List]);
    assert_eq!(subject.listed(&["00.a", "10.off", "20.b"]), [start("00.a", "startup")]);
    assert_eq!(subject.ended(Ending::Exited(0)), [start("20.b", "startup")]);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(1, 0)]);
    assert_eq!(
        subject.results("startup"),
        (0, named(&[("00.a", 0), ("10.off", -errno::ENOEXEC), ("20.b", 0)]))
    );
}

#[test]
fn a_failure_ends_the_event_and_later_scripts_keep_what_they_had() {
    let mut subject = Subject::new();
    subject.run(1, "monitor");
    subject.listed(&["00.a", "20.b"]);
    subject.ended(Ending::Exited(0));
    subject.ended(Ending::Exited(0));
    subject.run(2, "monitor");
    subject.listed(&["00.a", "20.b", "30.new"]);
    assert_eq!(subject.ended(Ending::Exited(3)), [answer(2, errno::ENOEXEC)]);
    let expected = named(&[("00.a", 3), ("20.b", 0), ("30.new", -errno::ENOMSG)]);
    assert_eq!(subject.results("monitor"), (3, expected));
}

#[test]
fn run_all_goes_on_and_reports_the_last_failure() {
    let mut subject = Subject::new();
    let (event, args) = ("x".to_owned(), vec!["a".to_owned()]);
    let run = Event::Run { asker: asker(1), event, args, timeout_s: 30, run_all: true };
    subject.handle(run);
    subject.listed(&["00.a", "10.b", "20.c"]);
    assert_eq!(subject.ended(Ending::Exited(1)), [start("10.b", "x")]);
    assert_eq!(subject.ended(Ending::Exited(2)), [start("20.c", "x")]);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(1, errno::ENOEXEC)]);
    assert_eq!(subject.results("x").0, 2);
}

#[test]
fn a_monitor_gives_way_to_any_other_event() {
    let mut subject = Subject::new();
    subject.run(1, "monitor");
    subject.listed(&["00.a"]);
    assert_eq!(subject.run(2, "takeip"), [Action::Kill, answer(1, errno::ECANCELED), Action::List]);
    assert!(subject.component.history("monitor").is_none(), "a cancelled run leaves no trace");
    assert_eq!(subject.run(3, "monitor"), [answer(3, errno::ECANCELED)]);
    assert_eq!(subject.listed(&["00.a"]), [start("00.a", "takeip")]);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(2, 0)]);
}

#[test]
fn events_wait_for_each_other_in_order() {
    let mut subject = Subject::new();
    subject.run(1, "takeip");
    subject.listed(&["00.a"]);
    assert_eq!(subject.run(2, "releaseip"), []);
    assert_eq!(subject.run(3, "takeip"), []);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(1, 0), Action::List]);
    assert_eq!(subject.listed(&["00.a"]), [start("00.a", "releaseip")]);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(2, 0), Action::List]);
}

#[test]
fn a_script_that_hangs_is_debugged_and_the_event_times_out() {
    let mut subject = Subject::new();
    subject.run(1, "monitor");
    subject.listed(&["00.a", "10.b"]);
    assert_eq!(subject.component.deadline_ms(), Some(31_000));
    subject.now_ms = 31_000;
    assert_eq!(
        subject.handle(Event::Tick),
        [Action::Debug { event: "monitor".into() }, answer(1, errno::ETIMEDOUT)]
    );
    let expected = named(&[("00.a", -errno::ETIMEDOUT), ("10.b", -errno::ENOMSG)]);
    assert_eq!(subject.results("monitor"), (-errno::ETIMEDOUT, expected));
}

#[test]
fn an_event_that_waits_too_long_times_out_without_running() {
    let mut subject = Subject::new();
    subject.run(1, "takeip");
    subject.listed(&["00.a"]);
    subject.now_ms = 20_000;
    let (event, args) = ("releaseip".to_owned(), Vec::new());
    let run = Event::Run { asker: asker(2), event, args, timeout_s: 5, run_all: false };
    assert_eq!(subject.handle(run), []);
    subject.now_ms = 25_000;
    assert_eq!(subject.handle(Event::Tick), [answer(2, errno::ETIMEDOUT)]);
    assert_eq!(subject.ended(Ending::Exited(0)), [answer(1, 0)]);
}

#[test]
fn a_time_of_zero_has_passed_already() {
    let mut subject = Subject::new();
    let (event, args) = ("x".to_owned(), Vec::new());
    let run = Event::Run { asker: asker(1), event, args, timeout_s: 0, run_all: false };
    assert_eq!(subject.handle(run), [Action::List]);
    assert_eq!(subject.listed(&["00.a"]), [answer(1, errno::ETIMEDOUT)]);
}

#[test]
fn a_component_that_is_not_there_is_said_so() {
    let mut subject = Subject::new();
    subject.run(1, "x");
    assert_eq!(subject.handle(Event::Listed(Err(errno::ENOENT))), [answer(1, errno::ENOENT)]);
    assert!(subject.component.history("x").is_none());
}

#[test]
fn ends_are_told_apart_as_c_does() {
    for (ending, result, event) in [
        (Ending::Exited(64 + errno::EACCES), -errno::ENOEXEC, 0),
        (Ending::Exited(64 + errno::ENOEXEC), -errno::ENOEXEC, 0),
        (Ending::Exited(64 + errno::ENOENT), -errno::ENOENT, errno::ENOEXEC),
        (Ending::NotRun(errno::EACCES), -errno::ENOEXEC, 0),
        (Ending::NotRun(errno::ENOENT), -errno::ENOENT, errno::ENOEXEC),
        (Ending::Signalled, -errno::EINTR, errno::ENOEXEC),
        (Ending::Exited(255), 255, errno::ENOEXEC),
        (Ending::Exited(63), 63, errno::ENOEXEC),
    ] {
        let mut subject = Subject::new();
        subject.run(1, "x");
        subject.listed(&["00.a"]);
        assert_eq!(subject.ended(ending), [answer(1, event)], "{ending:?}");
        assert_eq!(subject.results("x").1, named(&[("00.a", result)]), "{ending:?}");
    }
}

#[test]
fn no_scripts_at_all_is_success() {
    let mut subject = Subject::new();
    subject.run(1, "x");
    assert_eq!(subject.listed(&[]), [answer(1, 0)]);
    assert_eq!(subject.results("x"), (0, Vec::new()));
}
