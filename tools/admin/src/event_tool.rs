//! `ctdb-event`: runs events through the event daemon, shows how they went, enables scripts.
//!
//! Role: the commands and their exit statuses. Talking to the daemon: `client.rs`; what is printed
//! about a run: `report.rs`; script files, which need no daemon: `scripts.rs`.
//! Origin: `ctdb/event/event_tool.c`; output compared with 4.17, against Debian's `ctdb-eventd`;
//! `docs/spec/admin-interface.md` 2.3.

mod client;
mod report;
mod scripts;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use ringmaster_control::config::{LogLevel, Paths};
use ringmaster_protocol::eventd::{EventReply, EventRequest, RunFlags};
use ringmaster_protocol::text::Text;

use crate::cmdline::{Command, Options, Tool, leading_number};
use crate::output::Output;
use client::CallError;

#[derive(Clone, Copy, Debug)]
enum What {
    Run,
    Status,
    List,
    Enable,
    Disable,
}

const TOOL: Tool<What> = Tool {
    name: "ctdb-event",
    options: Options::Debug,
    commands: &[
        Command {
            id: What::Run,
            name: "run",
            args: "<timeout> <component> <event> <args>",
            help: "Run an event",
            args_min: 3,
            args_max: usize::MAX,
        },
        Command {
            id: What::Status,
            name: "status",
            args: "<component> <event>",
            help: "Get status of an event",
            args_min: 2,
            args_max: 2,
        },
        Command {
            id: What::List,
            name: "script list",
            args: "<component>",
            help: "List event scripts",
            args_min: 1,
            args_max: 1,
        },
        Command {
            id: What::Enable,
            name: "script enable",
            args: "<component> <script>",
            help: "Enable an event script",
            args_min: 2,
            args_max: 2,
        },
        Command {
            id: What::Disable,
            name: "script disable",
            args: "<component> <script>",
            help: "Disable an event script",
            args_min: 2,
            args_max: 2,
        },
    ],
    bad_args_status: 1,
};

/// Runs the tool.
pub fn run(args: &[OsString], posixly_correct: bool, paths: impl FnOnce() -> Paths) -> Output {
    let invocation = match TOOL.parse(args, posixly_correct) {
        Ok(invocation) => invocation,
        Err(output) => return output,
    };
    let session = Session { paths: paths(), log_level: invocation.log_level };
    match (invocation.command, invocation.args.as_slice()) {
        (What::Run, [timeout, component, event, args @ ..]) => {
            session.run_event(timeout, component, event, args)
        }
        (What::Status, [component, event]) => session.status(component, event),
        (What::List, [component]) => scripts::list(&session.paths, component, session.log_level),
        (What::Enable, [component, script]) => {
            scripts::enable(&session.paths, component, script, session.log_level)
        }
        (What::Disable, [component, script]) => {
            scripts::disable(&session.paths, component, script, session.log_level)
        }
        // The table's argument counts rule the rest out.
        _ => Output::default().with_status(1),
    }
}

struct Session {
    paths: Paths,
    log_level: LogLevel,
}

impl Session {
    fn run_event(
        &self,
        timeout: &OsStr,
        component: &OsStr,
        event: &OsStr,
        args: &[OsString],
    ) -> Output {
        let joined = args.join(OsStr::new(" "));
        let request = EventRequest::Run {
            component: text(component),
            event: text(event),
            args: if args.is_empty() { None } else { text(&joined) },
            timeout_s: timeout_seconds(timeout),
            flags: RunFlags(0),
        };
        let mut output = Output::default();
        self.call(&request, &mut output, "run event", component, event, |reply, output| {
            let EventReply::Run { result } = reply else { return None };
            report::run_verdict(*result, component, event, output);
            self.finished("run", *result, output);
            Some(report::exit_status(*result))
        });
        output
    }

    fn status(&self, component: &OsStr, event: &OsStr) -> Output {
        let request = EventRequest::Status { component: text(component), event: text(event) };
        let mut output = Output::default();
        let what = "get status for event";
        self.call(&request, &mut output, what, component, event, |reply, output| {
            let EventReply::Status { status } = reply else { return None };
            let result = match status {
                Ok(status) => {
                    report::scripts(&status.scripts, output);
                    0
                }
                Err(error) => {
                    report::no_status(error.get(), component, event, output);
                    error.get()
                }
            };
            self.finished("status", result, output);
            Some(match status {
                Ok(status) => report::exit_status(status.summary),
                // Here C hands the number to `exit()` with its sign.
                Err(error) => error.get().to_le_bytes()[0],
            })
        });
        output
    }

    /// Sends `request` and lets `take` print the reply and say the exit status; `None` from it: the
    /// reply belongs to another command.
    fn call(
        &self,
        request: &EventRequest<'_>,
        output: &mut Output,
        what: &str,
        component: &OsStr,
        event: &OsStr,
        take: impl FnOnce(&EventReply<'_>, &mut Output) -> Option<u8>,
    ) {
        let socket = self.paths.socket(OsStr::new("eventd"));
        let packet = match client::call(&socket, request) {
            Ok(packet) => packet,
            Err(CallError::Connect) => {
                let text = [b"socket connect failed - ", socket.as_os_str().as_bytes()];
                output.err(text.concat());
                output.err(format!("Failed to initialize event client, ret={}", libc::EIO));
                output.status = 5;
                return;
            }
            Err(CallError::Closed) => {
                if self.log_level >= LogLevel::Notice {
                    output.err("connection to daemon closed, exiting");
                }
                output.status = 1;
                return;
            }
        };
        let status = match EventReply::from_packet(&packet) {
            Ok((_, reply)) => take(&reply, output),
            Err(_) => None,
        };
        output.status = status.unwrap_or_else(|| {
            let end = format!(", ret={}", libc::EMSGSIZE);
            let text = [
                b"Failed to ",
                what.as_bytes(),
                b" ",
                event.as_bytes(),
                b" in ",
                component.as_bytes(),
                end.as_bytes(),
            ];
            output.err(text.concat());
            1
        });
    }

    fn finished(&self, command: &str, result: i32, output: &mut Output) {
        if self.log_level >= LogLevel::Notice {
            output.err(format!("Command {command} finished with result={result}"));
        }
    }
}

fn text(word: &OsStr) -> Option<Text<'_>> {
    Some(Text::new(word.as_bytes()))
}

/// `atoi` (which keeps the low 32 bits), and 0 for what is negative then. The daemon takes 0 as a
/// time-out that is over at once, whatever the manual says.
fn timeout_seconds(text: &OsStr) -> u32 {
    let [a, b, c, d, ..] = leading_number(text).to_le_bytes();
    u32::try_from(i32::from_le_bytes([a, b, c, d])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_read_like_atoi() {
        for (text, seconds) in [
            ("30", 30),
            ("3x", 3),
            ("x", 0),
            ("", 0),
            ("-1", 0),
            (" 8", 8),
            ("010", 10),
            ("4294967295", 0),
            ("2147483648", 0),
            ("18446744073709551616", 0),
            ("99999999999", 1_215_752_191),
        ] {
            assert_eq!(timeout_seconds(OsStr::new(text)), seconds, "{text}");
        }
    }
}
