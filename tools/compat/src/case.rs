//! The case file: one text file per family of commands.
//!
//! Role: text to [`Family`] and its [`Case`]s; every mistake names its line. The format is described
//! in `README.md` of this crate.
//! Invariants: pure; unknown keys are errors, so that a misspelt `gap-tool` is not a lost gap.

use thiserror::Error;

use crate::cluster::NODES_MAX;
use crate::normalise::Extra;

/// The cluster a family runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNeeds {
    /// Number of nodes.
    pub nodes: usize,
    /// Whether the nodes have the usual public addresses.
    pub public_addresses: bool,
    /// Whether there is a cluster lock.
    pub lock: bool,
    /// Tunables from the start.
    pub tunables: Vec<(String, u32)>,
}

impl ClusterNeeds {
    /// What these cases need that our daemon does not have yet; `None` when they run on it.
    #[must_use]
    pub const fn beyond_our_daemon(&self) -> Option<&'static str> {
        if self.nodes > 1 { Some("links between nodes") } else { None }
    }
}

/// One file: a cluster of its own, cases in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// File name without `.case`.
    pub name: String,
    /// The cluster to start.
    pub cluster: ClusterNeeds,
    /// Steps after the start, before the first case.
    pub setup: Vec<Step>,
    /// The cases in file order.
    pub cases: Vec<Case>,
}

/// What happens in a case, in this order, on one node each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// PNN of the node whose environment it has.
    pub node: usize,
    /// What it is for.
    pub kind: StepKind,
    /// A line for `/bin/sh -c`.
    pub line: String,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Always with the C tool; must exit 0.
    Setup,
    /// Always with the C tool; repeated until it exits 0.
    Await,
    /// With the tool under test; its output and status are compared.
    Run,
    /// As `Setup`, and also run when the case failed.
    Cleanup,
}

/// One compared thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Unique in its family.
    pub name: String,
    /// Steps in file order.
    pub steps: Vec<Step>,
    /// What else must be made equal.
    pub normalise: Vec<Extra>,
    /// Whether it makes no sense on one node.
    pub needs_nodes: bool,
    /// `gap-NN`: our tool differs here, and must.
    pub gap_tool: Option<String>,
    /// `gap-NN`: our daemon differs here, and must.
    pub gap_daemon: Option<String>,
}

/// Why a case file cannot be read. Lines count from 1.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CaseError {
    /// Not of the form `key: value`.
    #[error("line {line}: expected `key: value`, a comment or an empty line")]
    NoKey { line: usize },
    /// A key nobody knows, or not allowed there.
    #[error("line {line}: `{key}` is not a key here; see README.md of the crate")]
    UnknownKey { line: usize, key: String },
    /// The value means nothing.
    #[error("line {line}: `{value}` is not a value of `{key}`; see README.md of the crate")]
    BadValue { line: usize, key: String, value: String },
    /// A name used twice.
    #[error("line {line}: there is a case `{name}` already")]
    Duplicate { line: usize, name: String },
    /// A case that compares nothing.
    #[error("case `{name}` has no `run:` line")]
    NoRun { name: String },
}

impl Family {
    /// Reads the text of `NAME.case`.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn parse(name: &str, text: &str) -> Result<Self, CaseError> {
        let cluster =
            ClusterNeeds { nodes: 3, public_addresses: false, lock: true, tunables: Vec::new() };
        let mut family =
            Self { name: name.to_owned(), cluster, setup: Vec::new(), cases: Vec::new() };
        for (index, content) in text.lines().enumerate() {
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let line = index + 1;
            let (key, value) = content.split_once(':').ok_or(CaseError::NoKey { line })?;
            family.take_line(Line { line, key: key.trim(), value: value.trim() })?;
        }
        let without_run = |case: &&Case| case.steps.iter().all(|step| step.kind != StepKind::Run);
        match family.cases.iter().find(without_run) {
            Some(case) => Err(CaseError::NoRun { name: case.name.clone() }),
            None => Ok(family),
        }
    }

    /// What of this family can be asked of a node that is alone: `NAME-alone`. Without the lines on
    /// other nodes, and without the cases that prepare something there or say `needs: nodes`.
    /// `None` when it is for one node anyway, or nothing is left.
    #[must_use]
    pub fn alone(&self) -> Option<Self> {
        if self.cluster.nodes == 1 {
            return None;
        }
        let mut family = self.clone();
        family.name.push_str("-alone");
        family.cluster.nodes = 1;
        family.setup.retain(|step| step.node == 0);
        for case in &mut family.cases {
            case.steps.retain(|step| step.node == 0 || step.kind != StepKind::Run);
        }
        family.cases.retain(|case| {
            let compared = case.steps.iter().any(|step| step.kind == StepKind::Run);
            compared && !case.needs_nodes && case.steps.iter().all(|step| step.node == 0)
        });
        (!family.cases.is_empty()).then_some(family)
    }

    fn take_line(&mut self, line: Line<'_>) -> Result<(), CaseError> {
        if line.key == "case" {
            return self.take_case(line);
        }
        let step = line.step(self.cluster.nodes)?;
        let Some(case) = self.cases.last_mut() else {
            match step {
                Some(step) if matches!(step.kind, StepKind::Setup | StepKind::Await) => {
                    self.setup.push(step);
                }
                None if line.key == "cluster" => self.cluster = line.cluster()?,
                _ => return Err(line.unknown()),
            }
            return Ok(());
        };
        match (step, line.key) {
            (Some(step), _) => case.steps.push(step),
            (None, "normalise") => {
                for word in line.value.split_whitespace() {
                    case.normalise.push(Extra::from_word(word).ok_or_else(|| line.bad_value())?);
                }
            }
            (None, "needs") if line.value == "nodes" => case.needs_nodes = true,
            (None, "needs") => return Err(line.bad_value()),
            (None, "gap-tool") => case.gap_tool = Some(line.gap()?),
            (None, "gap-daemon") => case.gap_daemon = Some(line.gap()?),
            (None, _) => return Err(line.unknown()),
        }
        Ok(())
    }

    fn take_case(&mut self, line: Line<'_>) -> Result<(), CaseError> {
        let name = line.value;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(line.bad_value());
        }
        if self.cases.iter().any(|case| case.name == name) {
            return Err(CaseError::Duplicate { line: line.line, name: name.to_owned() });
        }
        self.cases.push(Case {
            name: name.to_owned(),
            steps: Vec::new(),
            normalise: Vec::new(),
            needs_nodes: false,
            gap_tool: None,
            gap_daemon: None,
        });
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    line: usize,
    key: &'a str,
    value: &'a str,
}

impl Line<'_> {
    /// `KIND: LINE` or `KIND@NODE: LINE`; `None` when the key is no kind of step.
    fn step(&self, nodes: usize) -> Result<Option<Step>, CaseError> {
        let (word, node) = self.key.split_once('@').unwrap_or((self.key, "0"));
        let kind = match word {
            "setup" => StepKind::Setup,
            "await" => StepKind::Await,
            "run" => StepKind::Run,
            "cleanup" => StepKind::Cleanup,
            _ => return Ok(None),
        };
        let node = node.parse().ok().filter(|node| *node < nodes).ok_or_else(|| self.unknown())?;
        if self.value.is_empty() {
            return Err(self.bad_value());
        }
        Ok(Some(Step { node, kind, line: self.value.to_owned() }))
    }

    fn cluster(&self) -> Result<ClusterNeeds, CaseError> {
        let mut needs =
            ClusterNeeds { nodes: 3, public_addresses: false, lock: true, tunables: Vec::new() };
        for word in self.value.split_whitespace() {
            match word.split_once('=') {
                None if word == "public-addresses" => needs.public_addresses = true,
                None if word == "no-lock" => needs.lock = false,
                Some(("nodes", count)) => {
                    let count = count.parse().ok().filter(|n| (1..=NODES_MAX).contains(n));
                    needs.nodes = count.ok_or_else(|| self.bad_value())?;
                }
                Some((name, value)) if name.starts_with(|c: char| c.is_ascii_uppercase()) => {
                    let value = value.parse().map_err(|_| self.bad_value())?;
                    needs.tunables.push((name.to_owned(), value));
                }
                _ => return Err(self.bad_value()),
            }
        }
        Ok(needs)
    }

    fn gap(&self) -> Result<String, CaseError> {
        let number = self.value.strip_prefix("gap-").filter(|number| number.parse::<u32>().is_ok());
        number.map(|_| self.value.to_owned()).ok_or_else(|| self.bad_value())
    }

    fn unknown(&self) -> CaseError {
        CaseError::UnknownKey { line: self.line, key: self.key.to_owned() }
    }

    fn bad_value(&self) -> CaseError {
        let (key, value) = (self.key.to_owned(), self.value.to_owned());
        CaseError::BadValue { line: self.line, key, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        # a family\n\
        cluster: nodes=2 public-addresses MonitorInterval=5\n\
        setup: ctdb attach a.tdb\n\
        \n\
        case: status-after-disable\n\
        setup@1: ctdb disable\n\
        run: ctdb status : still the value\n\
        cleanup@1: ctdb enable\n\
        normalise: numbers sort\n\
        gap-tool: gap-17\n";

    #[test]
    fn a_family_reads_as_it_is_written() {
        let family = Family::parse("state", TEXT).unwrap();
        assert_eq!(family.cluster.nodes, 2);
        assert!(family.cluster.public_addresses);
        assert_eq!(family.cluster.tunables, [("MonitorInterval".to_owned(), 5)]);
        assert_eq!(family.setup.len(), 1);
        let [case] = &family.cases[..] else { panic!("{:?}", family.cases) };
        let kinds: Vec<_> = case.steps.iter().map(|step| (step.node, step.kind)).collect();
        let expected = [(1, StepKind::Setup), (0, StepKind::Run), (1, StepKind::Cleanup)];
        assert_eq!(kinds, expected);
        assert_eq!(case.steps[1].line, "ctdb status : still the value");
        assert_eq!(case.normalise, [Extra::Numbers, Extra::Sort]);
        assert_eq!(case.gap_tool.as_deref(), Some("gap-17"));
        assert_eq!(case.gap_daemon, None);
    }

    #[test]
    fn what_is_asked_of_a_node_alone_concerns_no_other() {
        let text = "cluster: nodes=3\nsetup: a\nsetup@1: b\n\
            case: both\nrun: c\nrun@1: d\n\
            case: prepares-elsewhere\nsetup@2: e\nrun: f\n\
            case: asks-elsewhere\nrun@1: g\n\
            case: marked\nrun: h\nneeds: nodes\n";
        let alone = Family::parse("f", text).unwrap().alone().unwrap();
        assert_eq!((alone.name.as_str(), alone.cluster.nodes), ("f-alone", 1));
        assert_eq!(alone.setup.len(), 1);
        let [case] = &alone.cases[..] else { panic!("{:?}", alone.cases) };
        assert_eq!(case.name, "both");
        assert_eq!(case.steps.len(), 1);
        assert_eq!(alone.alone(), None);
    }

    #[test]
    fn a_mistake_names_its_line() {
        let unknown = |line, key: &str| CaseError::UnknownKey { line, key: key.to_owned() };
        let cases = [
            ("case: a\nrun: x\ngaptool: gap-1\n", unknown(3, "gaptool")),
            ("case: a\nrun@3: x\n", unknown(2, "run@3")),
            ("run: x\n", unknown(1, "run")),
            ("case: a\nrun: x\ncase: a\n", CaseError::Duplicate { line: 3, name: "a".into() }),
            ("case: a\nsetup: x\n", CaseError::NoRun { name: "a".into() }),
            ("nonsense\n", CaseError::NoKey { line: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(Family::parse("f", text), Err(expected), "{text}");
        }
        for text in ["case: A b\n", "cluster: nodes=99\n", "case: a\ngap-tool: 17\n"] {
            assert!(matches!(Family::parse("f", text), Err(CaseError::BadValue { .. })), "{text}");
        }
    }
}
