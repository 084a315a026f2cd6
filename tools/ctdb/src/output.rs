//! Where output goes and in which form.
//!
//! Role: one [`Output`] per run; handlers give it reports, lines and complaints.
//! Invariants
//! - In JSON mode standard output carries one document and nothing else.
//! - A document has no newline after it (as Samba's), except on a terminal and between the
//!   documents of `--watch`, which are one line each.
//! - A reader that went away ends the process as SIGPIPE would; no other write error is lost.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::page::Page;

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For people, and for the scripts that read it all the same.
    Human,
    /// Rows between separators.
    Machine,
    /// One JSON document.
    Json,
}

/// What a reporting command has to say; its serialised form is the JSON document.
pub trait Report: Serialize {
    /// The form without options.
    fn human(&self, page: &mut Page);

    /// The form of `-X`. Commands without one print the same with and without it.
    fn machine(&self, page: &mut Page) {
        self.human(page);
    }
}

/// How a run prints.
#[derive(Clone, Debug)]
pub struct Form {
    pub mode: Mode,
    pub separator: Vec<u8>,
    pub colors: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
    /// JSON documents on one line each.
    pub stream: bool,
}

/// The two streams of a run.
pub struct Output<'a> {
    pub form: Form,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Prints to the given streams.
    pub fn new(form: Form, stdout: &'a mut dyn Write, stderr: &'a mut dyn Write) -> Self {
        Self { form, stdout, stderr }
    }

    /// An empty page in this run's form.
    #[must_use]
    pub fn page(&self) -> Page {
        Page::new(self.form.separator.clone(), self.form.colors)
    }

    /// Prints a report in the form asked for.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn report(&mut self, report: &impl Report) -> io::Result<()> {
        if self.form.mode == Mode::Json {
            return self.json(report);
        }
        let mut page = self.page();
        match self.form.mode {
            Mode::Machine => report.machine(&mut page),
            _ => report.human(&mut page),
        }
        self.stdout.write_all(page.as_bytes())?;
        self.stdout.flush()
    }

    fn json(&mut self, report: &impl Report) -> io::Result<()> {
        let document = if self.form.stream {
            serde_json::to_vec(report)?
        } else {
            serde_json::to_vec_pretty(report)?
        };
        self.stdout.write_all(&document)?;
        if self.form.stream || self.form.terminal {
            self.stdout.write_all(b"\n")?;
        }
        self.stdout.flush()
    }

    /// A line on standard output; on standard error in JSON mode.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn notice(&mut self, text: impl Display) -> io::Result<()> {
        if self.form.mode == Mode::Json {
            self.complain(text);
            return Ok(());
        }
        writeln!(self.stdout, "{text}")?;
        self.stdout.flush()
    }

    /// A line on standard error. A closed standard error is nobody's concern.
    pub fn complain(&mut self, text: impl Display) {
        // One write per line, so that lines of several processes do not mix.
        let line = format!("{text}\n");
        let _closed = self.stderr.write_all(line.as_bytes());
    }

    /// Standard output, for reports too long to build in memory. Callers flush.
    pub fn stdout(&mut self) -> &mut dyn Write {
        self.stdout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Leader {
        leader: u32,
    }

    impl Report for Leader {
        fn human(&self, page: &mut Page) {
            page.line(self.leader);
        }
    }

    fn printed(mode: Mode, terminal: bool, stream: bool) -> String {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let form = Form { mode, separator: b"|".to_vec(), colors: false, terminal, stream };
        let mut output = Output::new(form, &mut stdout, &mut stderr);
        output.report(&Leader { leader: 3 }).unwrap();
        assert!(stderr.is_empty());
        String::from_utf8(stdout).unwrap()
    }

    #[test]
    fn machine_form_falls_back_to_the_human_one() {
        assert_eq!(printed(Mode::Human, false, false), "3\n");
        assert_eq!(printed(Mode::Machine, false, false), "3\n");
    }

    #[test]
    fn a_document_ends_without_newline_except_on_a_terminal_or_in_a_stream() {
        assert_eq!(printed(Mode::Json, false, false), "{\n  \"leader\": 3\n}");
        assert_eq!(printed(Mode::Json, true, false), "{\n  \"leader\": 3\n}\n");
        assert_eq!(printed(Mode::Json, false, true), "{\"leader\":3}\n");
    }

    #[test]
    fn notices_leave_standard_output_to_the_document() {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let form = Form {
            mode: Mode::Json,
            separator: Vec::new(),
            colors: false,
            terminal: false,
            stream: false,
        };
        let mut output = Output::new(form, &mut stdout, &mut stderr);
        output.notice("Node 0 does not know about IP 10.0.0.1").unwrap();
        assert!(stdout.is_empty());
        assert_eq!(stderr, b"Node 0 does not know about IP 10.0.0.1\n");
    }
}
