//! Event scripts as files: list, enable, disable. Works without the event daemon.
//!
//! A shipped script is enabled by a symbolic link in the configuration directory whose *text* is
//! the script's path; a local script by its execute permission.
//! Origin: `ctdb/common/event_script.c`, `ctdb/event/event_tool.c`, tried with 4.17.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ringmaster_control::config::{LogLevel, Paths};

use crate::output::Output;

const SUFFIX: &[u8] = b".script";
const EXECUTE_ALL: u32 = 0o111;
const EXECUTE_OWNER: u32 = 0o100;

/// `script list`.
pub(super) fn list(paths: &Paths, component: &OsStr, log_level: LogLevel) -> Output {
    let mut output = Output::default();
    let shipped_dir = paths.shipped_events_dir(component);
    let local_dir = paths.events_dir(component);
    let (shipped, mut local) = match (names(&shipped_dir), names(&local_dir)) {
        (Ok(shipped), Ok(local)) => (shipped, local),
        (Err(error), _) | (_, Err(error)) => {
            let result = error.raw_os_error().unwrap_or(libc::EIO);
            output.err(format!("Command script list finished with result={result}"));
            return output.with_status(u8::try_from(result).unwrap_or(1));
        }
    };
    for name in shipped {
        let target = shipped_dir.join(file_name(&name));
        let enabled = fs::read_link(local_dir.join(file_name(&name)))
            .is_ok_and(|found| found.as_os_str() == target.as_os_str());
        if enabled {
            local.retain(|other| *other != name);
        }
        output.out(row(enabled, &name));
    }
    if !local.is_empty() {
        output.out("");
    }
    for name in local {
        let enabled = fs::metadata(local_dir.join(file_name(&name)))
            .is_ok_and(|found| found.permissions().mode() & EXECUTE_OWNER != 0);
        output.out(row(enabled, &name));
    }
    finished("script list", 0, log_level, &mut output);
    output
}

fn row(enabled: bool, name: &OsStr) -> Vec<u8> {
    [if enabled { b"* " } else { b"  " }, name.as_bytes()].concat()
}

/// `script enable`.
pub(super) fn enable(
    paths: &Paths,
    component: &OsStr,
    script: &OsStr,
    log_level: LogLevel,
) -> Output {
    let place = Place::new(paths, component, script);
    let mut output = Output::default();
    match place.kind() {
        Kind::Link => {}
        Kind::File => place.set_mode(&mut output, log_level, |mode| mode | EXECUTE_ALL),
        Kind::Other => place.not_a_file(&mut output),
        Kind::Missing => {
            let shipped = below(paths.shipped_events_dir(component), script);
            if !shipped.exists() {
                place.does_not_exist(&mut output);
            } else if symlink(&shipped, &place.path).is_err() {
                let path = place.path.as_os_str().as_bytes();
                output.out([b"Failed to create symlink ", path].concat());
                output.status = 5;
            }
        }
    }
    output
}

/// `script disable`.
pub(super) fn disable(
    paths: &Paths,
    component: &OsStr,
    script: &OsStr,
    log_level: LogLevel,
) -> Output {
    let place = Place::new(paths, component, script);
    let mut output = Output::default();
    match place.kind() {
        Kind::Missing => {}
        Kind::File => place.set_mode(&mut output, log_level, |mode| mode & !EXECUTE_ALL),
        Kind::Other => place.not_a_file(&mut output),
        Kind::Link => {
            if fs::remove_file(&place.path).is_err() {
                let path = place.path.as_os_str().as_bytes();
                output.out([b"Failed to remove symlink ", path].concat());
                output.status = 5;
            }
        }
    }
    output
}

enum Kind {
    Missing,
    Link,
    File,
    Other,
}

/// Where an enabled or local script lies.
struct Place<'a> {
    component: &'a OsStr,
    script: &'a OsStr,
    path: PathBuf,
}

impl<'a> Place<'a> {
    fn new(paths: &Paths, component: &'a OsStr, script: &'a OsStr) -> Self {
        Self { component, script, path: below(paths.events_dir(component), script) }
    }

    fn kind(&self) -> Kind {
        match fs::symlink_metadata(&self.path).map(|found| found.file_type()) {
            Err(_) => Kind::Missing,
            Ok(found) if found.is_symlink() => Kind::Link,
            Ok(found) if found.is_file() => Kind::File,
            Ok(_) => Kind::Other,
        }
    }

    fn set_mode(&self, output: &mut Output, log_level: LogLevel, change: impl Fn(u32) -> u32) {
        let result = if is_script(file_name(self.script).as_bytes()) {
            fs::metadata(&self.path)
                .and_then(|found| {
                    let mode = change(found.permissions().mode() & 0o7777);
                    fs::set_permissions(&self.path, Permissions::from_mode(mode))
                })
                .map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0)
        } else {
            libc::EINVAL
        };
        match result {
            0 => {}
            libc::ENOENT => self.does_not_exist(output),
            _ => {
                let text = [
                    b"Script ",
                    self.script.as_bytes(),
                    b" is invalid in ",
                    self.component.as_bytes(),
                ];
                output.out(text.concat());
            }
        }
        output.status = u8::try_from(result).unwrap_or(1);
        finished("script", result, log_level, output);
    }

    fn not_a_file(&self, output: &mut Output) {
        let path = self.path.as_os_str().as_bytes();
        output.out([b"Script ", path, b" is not a file or a link"].concat());
        output.status = 22;
    }

    fn does_not_exist(&self, output: &mut Output) {
        let (script, component) = (self.script.as_bytes(), self.component.as_bytes());
        output.out([b"Script ", script, b" does not exist in ", component].concat());
        output.status = 2;
    }
}

fn finished(command: &str, result: i32, log_level: LogLevel, output: &mut Output) {
    if log_level >= LogLevel::Notice {
        output.err(format!("Command {command} finished with result={result}"));
    }
}

/// Not `join`: a script name that begins with a slash must stay below the directory.
fn below(directory: PathBuf, script: &OsStr) -> PathBuf {
    let mut path = directory.into_os_string();
    path.push("/");
    path.push(file_name(script));
    path.into()
}

fn file_name(script: &OsStr) -> OsString {
    let mut file = script.to_owned();
    file.push(OsStr::from_bytes(SUFFIX));
    file
}

/// Two digits, a dot, anything, `.script`.
fn is_script(file: &[u8]) -> bool {
    matches!(file, [a, b, b'.', rest @ ..]
        if a.is_ascii_digit() && b.is_ascii_digit() && rest.ends_with(SUFFIX))
}

/// Names of the scripts in a directory, without suffix, in the order they run.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.file_name();
        if is_script(file.as_bytes()) {
            let stem = &file.as_bytes()[..file.len() - SUFFIX.len()];
            names.push(OsStr::from_bytes(stem).to_owned());
        }
    }
    names.sort_by_key(|name| file_name(name));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_digits_a_dot_and_the_suffix_make_a_script() {
        for file in ["00.ctdb.script", "99..script", "10.a b.script"] {
            assert!(is_script(file.as_bytes()), "{file}");
        }
        for file in ["1.a.script", "10a.script", "10.script", "xx.script", "10.a.script~", "10.a"] {
            assert!(!is_script(file.as_bytes()), "{file}");
        }
    }
}
