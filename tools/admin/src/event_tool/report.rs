//! What is printed about the run of an event.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ringmaster_protocol::eventd::ScriptStatus;
use ringmaster_protocol::process::Timeval;

use crate::errno;
use crate::output::Output;

/// C's `exit()` with a result: the sign does not count, and only the low byte reaches the shell.
pub(super) fn exit_status(result: i32) -> u8 {
    let [low, ..] = result.unsigned_abs().to_le_bytes();
    low
}

/// The line after RUN; none when all went well.
pub(super) fn run_verdict(result: i32, component: &OsStr, event: &OsStr, output: &mut Output) {
    let (component, event) = (component.as_bytes(), event.as_bytes());
    match result {
        0 => {}
        libc::ENOENT => no_directory(component, output),
        libc::ETIMEDOUT => {
            output.out([b"Event ", event, b" in ", component, b" timed out"].concat());
        }
        libc::ECANCELED => {
            output.out([b"Event ", event, b" in ", component, b" got cancelled"].concat());
        }
        libc::ENOEXEC => {
            output.out([b"Event ", event, b" in ", component, b" failed"].concat());
        }
        other => {
            let end = format!(", result={other}");
            let text = [b"Failed to run event ", event, b" in ", component, end.as_bytes()];
            output.out(text.concat());
        }
    }
}

/// The line when STATUS is refused.
pub(super) fn no_status(error: i32, component: &OsStr, event: &OsStr, output: &mut Output) {
    let (component, event) = (component.as_bytes(), event.as_bytes());
    match error {
        libc::ENOENT => no_directory(component, output),
        libc::EINVAL => {
            output.out([b"Event ", event, b" has never run in ", component].concat());
        }
        other => {
            let start = format!("Unknown error ({other}) for event ");
            output.out([start.as_bytes(), event, b" in ", component].concat());
        }
    }
}

fn no_directory(component: &[u8], output: &mut Output) {
    output.out([b"Event dir for ", component, b" does not exist"].concat());
}

/// One row for each script; what a script printed only when it failed.
pub(super) fn scripts(scripts: &[ScriptStatus<'_>], output: &mut Output) {
    for script in scripts {
        let mut row = script.name.map(|name| name.as_bytes().to_vec()).unwrap_or_default();
        row.resize(row.len().max(20), b' ');
        let text = match script.result {
            0 => ran("OK", script),
            result if result > 0 => ran("ERROR", script),
            result if result == -libc::ETIMEDOUT => {
                format!(" {:<10} {}", "TIMEDOUT", ctime(script.begin))
            }
            result if result == -libc::ENOEXEC => format!(" {:<10}", "DISABLED"),
            result => {
                let reason = errno::name(result.saturating_neg());
                format!(" {:<10} ({reason})", "CANNOT RUN")
            }
        };
        row.extend_from_slice(text.as_bytes());
        output.out(row);
        if script.result != 0 && script.result != -libc::ENOEXEC {
            let printed = script.output.map(|printed| printed.as_bytes()).unwrap_or_default();
            output.out([b"  OUTPUT: ", printed].concat());
        }
    }
}

fn ran(verdict: &str, script: &ScriptStatus<'_>) -> String {
    format!(" {verdict:<10} {:.3} {}", elapsed(script), ctime(script.begin))
}

/// Seconds from begin to end.
#[expect(clippy::cast_precision_loss, reason = "a run lasts seconds, printed in thousandths")]
fn elapsed(script: &ScriptStatus<'_>) -> f64 {
    let seconds = script.end.seconds.saturating_sub(script.begin.seconds);
    let microseconds = script.end.micros.saturating_sub(script.begin.micros);
    seconds as f64 + microseconds as f64 * 1e-6
}

/// Local time in the layout of C's `ctime`.
fn ctime(at: Timeval) -> String {
    let zoned = jiff::Timestamp::from_second(at.seconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::text::Text;

    use super::*;

    fn script<'a>(name: &'a str, result: i32, printed: Option<&'a str>) -> ScriptStatus<'a> {
        ScriptStatus {
            name: Some(Text::new(name)),
            begin: Timeval { seconds: 1_700_000_000, micros: 5000 },
            end: Timeval { seconds: 1_700_000_001, micros: 4000 },
            result,
            output: printed.map(Text::new),
        }
    }

    #[test]
    fn rows_are_those_of_the_c_tool() {
        let mut output = Output::default();
        scripts(
            &[
                script("00.ok", 0, Some("x")),
                script("10.err", 7, Some("x\n")),
                script("20.nomsg", -42, None),
                script("30.dis", -8, Some("out")),
                script("50.to", -110, Some("")),
            ],
            &mut output,
        );
        let at = ctime(Timeval { seconds: 1_700_000_000, micros: 0 });
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!(
                "00.ok                OK         0.999 {at}\n\
                 10.err               ERROR      0.999 {at}\n  OUTPUT: x\n\n\
                 20.nomsg             CANNOT RUN (No message of desired type)\n  OUTPUT: \n\
                 30.dis               DISABLED  \n\
                 50.to                TIMEDOUT   {at}\n  OUTPUT: \n"
            )
        );
    }

    #[test]
    fn the_exit_status_is_the_low_byte_without_the_sign() {
        assert_eq!([0, 3, -8, 110, 300, 256].map(exit_status), [0, 3, 8, 110, 44, 0]);
    }
}
