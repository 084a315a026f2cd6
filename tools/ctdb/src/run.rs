//! One run of the tool, in C's order of steps.
//!
//! Role: arguments and environment to an exit status; connects, checks the target node, calls the
//! handler, explains what failed.
//! Invariant: the order of the checks is the C tool's, because each has its own message and
//! several can apply at once.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2, tried with the 4.17 tool.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process;
use std::thread;
use std::time::Duration;

use ringmaster_protocol::node::NodeFlags;

use crate::alarm::Alarm;
use crate::arguments::unsigned32;
use crate::command::{Command, Effect, Failure, LocalHandler, Outcome, Run};
use crate::connection;
use crate::options::{self, Color, Options, Parsed};
use crate::output::{Form, Mode, Output};
use crate::page::Page;
use crate::places::{Places, helpers_beside};
use crate::session::Session;
use crate::table;
use crate::tool::Tool;
use crate::usage;

/// Seconds a whole run may take when nobody says otherwise.
const DEFAULT_RUNTIME: u32 = 120;

/// What a run needs to know of its surroundings.
struct Surroundings {
    stdout_is_terminal: bool,
    colors_wanted: bool,
}

impl Surroundings {
    fn look() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            colors_wanted: !set("NO_COLOR") && !dumb,
        }
    }

    fn form(&self, options: &Options) -> Form {
        let mode = match (options.json, options.machine) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Machine,
            (false, false) => Mode::Human,
        };
        let colors = match options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.stdout_is_terminal && self.colors_wanted,
        };
        Form {
            mode,
            separator: options.separator.as_bytes().to_vec(),
            colors: colors && mode == Mode::Human,
            terminal: self.stdout_is_terminal,
            stream: options.watch.is_some(),
        }
    }
}

/// Runs the tool with these arguments (without the program name) and the process's streams.
/// Returns the exit status.
#[must_use]
pub fn run(arguments: &[OsString]) -> u8 {
    match start(arguments) {
        Ok(status) | Err(Failure::Status(status)) => status,
        Err(Failure::Message { status, text }) => {
            eprintln!("{text}");
            status
        }
        Err(failure @ (Failure::Usage | Failure::Output(_))) => {
            eprintln!("{failure}");
            1
        }
    }
}

fn start(arguments: &[OsString]) -> Outcome {
    let surroundings = Surroundings::look();
    let variable = |name: &str| std::env::var_os(name);
    let posix = variable("POSIXLY_CORRECT").or_else(|| variable("POSIX_ME_HARDER")).is_some();
    let (options, words) = match options::parse(arguments, posix).map_err(Failure::new)? {
        Parsed::Run { options, words } => (options, words),
        Parsed::Help { .. } => {
            return print(|page| usage::options(page, surroundings.stdout_is_terminal), 0);
        }
        Parsed::Usage { .. } => return print(usage::synopsis, 0),
    };
    let limit = max_runtime(&options, variable("CTDB_TIMEOUT"))?;
    if options.json && options.machine {
        return Err(Failure::new("--json and -Y options are mutually exclusive"));
    }
    let Some((word, arguments)) = words.split_first() else {
        return print(|page| usage::everything(page, surroundings.stdout_is_terminal), 1);
    };
    let command = word.to_str().and_then(table::find).ok_or_else(|| {
        Failure::new(format_args!("Unknown command '{}'", word.to_string_lossy()))
    })?;
    check_new_options(command, &options)?;

    let beside = std::env::current_exe().ok().and_then(|program| helpers_beside(&program));
    let places = Places::from_environment(variable, beside).map_err(Failure::new)?;
    let alarm = Alarm::new(|| {
        let _closed = writeln!(io::stderr(), "Maximum runtime exceeded - exiting");
        process::exit(1);
    });
    let plan = Plan { command, options: &options, arguments, places: &places, alarm: &alarm };
    match options.watch {
        None => plan.round(limit, surroundings.form(&options)),
        Some(seconds) => plan.watch(limit, &surroundings, seconds),
    }
}

/// Limit of the run; `None` for the limit of several decades that C makes of a negative number.
fn max_runtime(options: &Options, variable: Option<OsString>) -> Result<Option<Duration>, Failure> {
    let seconds = match options.max_runtime {
        0 => match variable {
            Some(text) => {
                unsigned32(&text).ok_or_else(|| Failure::new("Invalid value CTDB_TIMEOUT"))?
            }
            None => DEFAULT_RUNTIME,
        },
        given => match u32::try_from(given) {
            Ok(given) => given,
            Err(_) => return Ok(None),
        },
    };
    // An alarm of 0 seconds is none.
    Ok((seconds != 0).then(|| Duration::from_secs(seconds.into())))
}

fn check_new_options(command: &Command, options: &Options) -> Result<(), Failure> {
    let name = command.name;
    if matches!(command.effect, Effect::Act) {
        if options.json {
            let text = format_args!("--json not supported by the {name} subcommand");
            return Err(Failure::new(text));
        }
        if options.watch.is_some() {
            let text = format_args!("--watch not supported by the {name} subcommand");
            return Err(Failure::new(text));
        }
    }
    Ok(())
}

fn print(text: impl FnOnce(&mut Page), status: u8) -> Outcome {
    let mut page = Page::new("|", false);
    text(&mut page);
    let mut stdout = io::stdout().lock();
    stdout.write_all(page.as_bytes())?;
    stdout.flush()?;
    Ok(status)
}

/// Everything about a run that stays the same from one round of `--watch` to the next.
struct Plan<'a> {
    command: &'static Command,
    options: &'a Options,
    arguments: &'a [OsString],
    places: &'a Places,
    alarm: &'a Alarm,
}

impl Plan<'_> {
    /// Runs until interrupted. A daemon that is down now may be up in the next round.
    fn watch(&self, limit: Option<Duration>, surroundings: &Surroundings, seconds: i32) -> Outcome {
        let pause = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        loop {
            let form = surroundings.form(self.options);
            if form.terminal && form.mode != Mode::Json {
                // Home, clear: a screen of its own for each round.
                io::stdout().write_all(b"\x1b[H\x1b[2J")?;
            }
            match self.round(limit, form) {
                Err(failure @ (Failure::Usage | Failure::Output(_))) => return Err(failure),
                Err(Failure::Message { text, .. }) => eprintln!("{text}"),
                Err(Failure::Status(_)) | Ok(_) => {}
            }
            self.alarm.set(None);
            thread::sleep(pause);
        }
    }

    fn round(&self, limit: Option<Duration>, form: Form) -> Outcome {
        self.alarm.set(limit);
        let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
        let output = Output::new(form, &mut stdout, &mut stderr);
        let Self { command, options, places, alarm, .. } = *self;
        let tool = Tool { command, options, places, output, alarm };
        let outcome = match command.run {
            Run::Local(handler) => self.local(tool, handler),
            Run::Own(_) | Run::Any(_) => self.connected(tool),
        };
        match outcome {
            Err(Failure::Usage) => print(|page| self.misuse(page), 1),
            outcome => outcome,
        }
    }

    fn misuse(&self, page: &mut Page) {
        if self.command.misuse_lists_all {
            usage::everything(page, io::stdout().is_terminal());
        } else {
            usage::command(page, self.command);
        }
    }

    fn check_arity(&self) -> Result<(), Failure> {
        let count = self.arguments.len();
        if self.command.arity.accepts(count) { Ok(()) } else { Err(Failure::Usage) }
    }

    fn local(&self, mut tool: Tool<'_>, handler: LocalHandler) -> Outcome {
        if self.options.node().is_some() {
            let text = format_args!("Cannot specify node for command {}", self.command.name);
            return Err(Failure::new(text));
        }
        self.check_arity()?;
        handler(&mut tool, self.arguments)
    }

    fn connected(&self, mut tool: Tool<'_>) -> Outcome {
        let client = connection::open(&mut tool)?;
        let mut session = Session::new(tool, client);
        if let Some(node) = self.options.node() {
            check_target(&mut session, node)?;
            session.target = node;
        }
        let handler = match self.command.run {
            Run::Own(_) if session.target != session.own => {
                let text =
                    format_args!("Node cannot be specified for command {}", self.command.name);
                return Err(Failure::new(text));
            }
            Run::Own(handler) | Run::Any(handler) => handler,
            Run::Local(handler) => return handler(&mut session.tool, self.arguments),
        };
        session.listen_for_leader()?;
        self.check_arity()?;
        handler(&mut session, self.arguments)
    }
}

fn check_target(session: &mut Session<'_>, node: u32) -> Result<(), Failure> {
    let map = session.nodemap()?;
    let found = map.0.iter().find(|entry| entry.pnn.get() == node);
    let Some(entry) = found else {
        return Err(Failure::new(format_args!("Node {node} does not exist")));
    };
    if entry.flags.intersects(NodeFlags::DISCONNECTED | NodeFlags::DELETED) {
        return Err(Failure::new(format_args!("Node {node} has status {}", entry.flags)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::find;

    #[test]
    fn the_option_beats_the_environment_beats_the_default() {
        let seconds = |max_runtime, variable: Option<&str>| {
            let options = Options { max_runtime, ..Options::default() };
            max_runtime_of(&options, variable)
        };
        assert_eq!(seconds(0, None), Some(120));
        assert_eq!(seconds(0, Some("7")), Some(7));
        assert_eq!(seconds(5, Some("soon")), Some(5));
        assert_eq!(seconds(-5, None), None);
        let refusal = max_runtime(&Options::default(), Some("soon".into())).unwrap_err();
        assert_eq!(refusal.to_string(), "Invalid value CTDB_TIMEOUT");
    }

    fn max_runtime_of(options: &Options, variable: Option<&str>) -> Option<u64> {
        max_runtime(options, variable.map(Into::into)).unwrap().map(|limit| limit.as_secs())
    }

    #[test]
    fn acting_commands_refuse_json_and_watch() {
        let json = Options { json: true, ..Options::default() };
        let watch = Options { watch: Some(1), ..Options::default() };
        let ban = find("ban").unwrap();
        let refusal = check_new_options(ban, &json).unwrap_err();
        assert_eq!(refusal.to_string(), "--json not supported by the ban subcommand");
        assert!(check_new_options(ban, &watch).is_err());
        assert!(check_new_options(find("status").unwrap(), &json).is_ok());
    }
}
