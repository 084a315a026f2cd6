//! What a run of a small tool leaves behind, so that the deciding code is a function.

use std::io::Write;
use std::process::ExitCode;

/// Text for both streams and the exit status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub status: u8,
}

impl Output {
    /// Appends a line to standard output.
    pub fn out(&mut self, line: impl AsRef<[u8]>) {
        self.stdout.extend_from_slice(line.as_ref());
        self.stdout.push(b'\n');
    }

    /// Appends a line to standard error.
    pub fn err(&mut self, line: impl AsRef<[u8]>) {
        self.stderr.extend_from_slice(line.as_ref());
        self.stderr.push(b'\n');
    }

    /// The same output with another exit status.
    #[must_use]
    pub const fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Writes both streams. Nobody is left to tell when that fails, so errors are dropped: C's
    /// tools do the same.
    #[must_use]
    pub fn deliver(self) -> ExitCode {
        let _ = std::io::stderr().write_all(&self.stderr);
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&self.stdout).and_then(|()| stdout.flush());
        ExitCode::from(self.status)
    }
}

/// Writes to standard output at once. When nobody reads any more the program ends, with the status
/// a shell shows for a program that died of it (C's programs do die).
pub fn say(text: impl AsRef<[u8]>) {
    const DIED_OF_SIGPIPE: i32 = 141;
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(DIED_OF_SIGPIPE);
    }
}

/// Writes a line to standard error. Unlike `eprintln!` it does not panic when that is closed: a
/// program that holds a lock must not end because nobody reads its complaints.
pub fn complain(line: impl AsRef<[u8]>) {
    let mut text = line.as_ref().to_vec();
    text.push(b'\n');
    let _ = std::io::stderr().write_all(&text);
}
