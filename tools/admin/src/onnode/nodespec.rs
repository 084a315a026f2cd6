//! Which nodes a specification means: pure, with the cluster's state behind a trait.
//!
//! The nodes file is read differently than the daemon reads it: what follows `#` is cut off and
//! blanks are removed; a line with nothing left is a dead slot that keeps its number.

use std::path::PathBuf;

/// What only a running cluster knows.
pub(super) trait Cluster {
    /// Output of `ctdb -X status`, or what it said instead.
    fn status(&mut self) -> Result<Vec<u8>, Vec<u8>>;
    /// Output of `ctdb pnn` on all nodes.
    fn pnns(&mut self) -> Vec<u8>;
}

/// Why there is nothing to run; each ends the program with status 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SpecError {
    Invalid,
    /// The number as it was written.
    NoSuchNode(Vec<u8>),
    NodesFile(PathBuf),
    NoStatus(Vec<u8>),
    /// `any`, and no node answered.
    NoneAvailable,
}

/// The nodes to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    pub(super) hosts: Vec<Vec<u8>>,
    /// The list was written as more than one, dead slots before the end counted in: print headers.
    pub(super) several: bool,
}

const DEAD: &[u8] = b"#DEAD";

/// Understands `spec`. `names`: host names are allowed.
pub(super) fn resolve(
    spec: &[u8],
    nodes_file: &[u8],
    names: bool,
    cluster: &mut dyn Cluster,
) -> Result<Nodes, SpecError> {
    let slots = slots(nodes_file);
    let words = words(spec, names)?;
    // One entry is one line of what the shell collects; an empty one is a dead slot.
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for word in words.split(|&b| is_blank(b)).filter(|word| !word.is_empty()) {
        match word {
            b"all" => {
                let alive = |slot: &Vec<u8>| if slot == DEAD { Vec::new() } else { slot.clone() };
                lines.extend(slots.iter().map(alive));
            }
            b"any" => lines.push(any(&slots, cluster)?),
            b"ok" | b"healthy" => with_status(&slots, cluster, is_healthy, &mut lines)?,
            b"con" | b"connected" => with_status(&slots, cluster, is_connected, &mut lines)?,
            number if number.len() <= 3 && number.iter().all(u8::is_ascii_digit) => {
                lines.push(nth(&slots, number)?);
            }
            name if names => lines.push(name.to_vec()),
            _ => return Err(SpecError::Invalid),
        }
    }
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    let several = lines.len() > 1 || lines.iter().any(|line| line.contains(&b' '));
    let hosts = lines
        .iter()
        .flat_map(|line| line.split(|&b| is_blank(b)))
        .filter(|host| !host.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    Ok(Nodes { hosts, several })
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n')
}

/// Lines of the nodes file without comments and blanks; [`DEAD`] where nothing is left.
fn slots(file: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<&[u8]> = file.split(|&b| b == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines
        .into_iter()
        .map(|line| {
            let end = line.iter().position(|&b| b == b'#').unwrap_or(line.len());
            let kept: Vec<u8> = line[..end].iter().copied().filter(|&b| b != b' ').collect();
            if kept.is_empty() { DEAD.to_vec() } else { kept }
        })
        .collect()
}

/// Checks the form of a specification and writes ranges out. All of it is checked before any node
/// is looked up.
fn words(spec: &[u8], names: bool) -> Result<Vec<u8>, SpecError> {
    let mut out = Vec::new();
    let mut items: Vec<&[u8]> = spec.split(|&b| b == b',').collect();
    // The shell drops what is empty at the end, once.
    if items.last().is_some_and(|last| last.is_empty()) {
        items.pop();
    }
    for item in items {
        if item.contains(&b'-') {
            write_range(item, &mut out)?;
        } else if is_keyword(item) || is_number(item) || names {
            out.extend_from_slice(item);
            out.push(b'\n');
        } else {
            return Err(SpecError::Invalid);
        }
    }
    Ok(out)
}

fn is_keyword(item: &[u8]) -> bool {
    matches!(item, b"all" | b"any" | b"ok" | b"healthy" | b"con" | b"connected")
}

/// What `[ ITEM -gt -1 ]` takes.
fn is_number(item: &[u8]) -> bool {
    let item = item.trim_ascii();
    let digits = item.strip_prefix(b"+").unwrap_or(item);
    !digits.is_empty() && digits.len() < 19 && digits.iter().all(u8::is_ascii_digit)
}

/// Numbers above this name no node: they have more than three digits.
const NUMBER_MAX: u32 = 999;

/// `A-B` as `seq A B` counts; the wrong way round it is empty.
fn write_range(item: &[u8], out: &mut Vec<u8>) -> Result<(), SpecError> {
    let bound = |text: &[u8]| -> Result<u32, SpecError> {
        let text = std::str::from_utf8(text).map_err(|_| SpecError::Invalid)?;
        if text.starts_with('+') {
            return Err(SpecError::Invalid);
        }
        text.parse().map_err(|_| SpecError::Invalid)
    };
    let mut halves = item.split(|&b| b == b'-');
    let (Some(first), Some(last), None) = (halves.next(), halves.next(), halves.next()) else {
        return Err(SpecError::Invalid);
    };
    // A range that goes on beyond the last possible number stops there: what matters is the first
    // node that does not exist.
    for number in bound(first)?..=bound(last)?.min(NUMBER_MAX + 1) {
        out.extend_from_slice(number.to_string().as_bytes());
        out.push(b'\n');
    }
    Ok(())
}

/// The node with a number, as the shell's positional parameters would find it.
fn nth(slots: &[Vec<u8>], number: &[u8]) -> Result<Vec<u8>, SpecError> {
    let hosts =
        slots.iter().flat_map(|slot| slot.split(|&b| is_blank(b))).filter(|host| !host.is_empty());
    std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok())
        .and_then(|index: usize| hosts.clone().nth(index))
        .filter(|host| *host != DEAD)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| SpecError::NoSuchNode(number.to_vec()))
}

fn any(slots: &[Vec<u8>], cluster: &mut dyn Cluster) -> Result<Vec<u8>, SpecError> {
    let output = cluster.pnns();
    let pnn = output
        .split(|&b| b == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && line.iter().all(u8::is_ascii_digit))
        .ok_or(SpecError::NoneAvailable)?;
    nth(slots, pnn)
}

fn with_status(
    slots: &[Vec<u8>],
    cluster: &mut dyn Cluster,
    wanted: fn(&[&[u8]]) -> bool,
    lines: &mut Vec<Vec<u8>>,
) -> Result<(), SpecError> {
    let status = cluster.status().map_err(SpecError::NoStatus)?;
    for row in status.split(|&b| b == b'\n').skip(1) {
        // `|PNN|ADDRESS|FLAG|FLAG|...|`
        let mut fields = row.split(|&b| b == b'|').skip(1);
        let (Some(pnn), Some(_address)) = (fields.next(), fields.next()) else { continue };
        let flags: Vec<&[u8]> = fields.collect();
        if wanted(&flags) {
            lines.push(nth(slots, pnn)?);
        }
    }
    Ok(())
}

fn is_healthy(flags: &[&[u8]]) -> bool {
    flags.iter().all(|flag| *flag != b"1")
}

fn is_connected(flags: &[&[u8]]) -> bool {
    flags.first().is_some_and(|disconnected| *disconnected == b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &[u8] = b"10.0.0.1\n#10.0.0.2\n10.0.0.3 # x\n\n10.0.0.5\n";

    struct Stub(Result<&'static str, &'static str>, &'static str);

    impl Cluster for Stub {
        fn status(&mut self) -> Result<Vec<u8>, Vec<u8>> {
            self.0.map(Into::into).map_err(Into::into)
        }
        fn pnns(&mut self) -> Vec<u8> {
            self.1.into()
        }
    }

    fn healthy() -> Stub {
        let status = "|Node|IP|Disconnected|Unhealthy|ThisNode|\n\
                      |0|10.0.0.1|0|0|Y|\n|2|10.0.0.3|0|1|N|\n|4|10.0.0.5|1|1|N|";
        Stub(Ok(status), "ssh: no route\n 2\n4\n")
    }

    fn hosts(spec: &str, names: bool) -> Result<Vec<String>, SpecError> {
        resolve(spec.as_bytes(), NODES, names, &mut healthy()).map(|nodes| {
            nodes.hosts.into_iter().map(|host| String::from_utf8(host).unwrap()).collect()
        })
    }

    #[test]
    fn lists_ranges_and_keywords_mix() {
        assert_eq!(hosts("all", false).unwrap(), ["10.0.0.1", "10.0.0.3", "10.0.0.5"]);
        assert_eq!(hosts("4,0", false).unwrap(), ["10.0.0.5", "10.0.0.1"]);
        assert_eq!(hosts("ok,con", false).unwrap(), ["10.0.0.1", "10.0.0.1", "10.0.0.3"]);
        assert_eq!(hosts("any", false).unwrap(), ["10.0.0.3"]);
        assert_eq!(hosts("0-0,2-1,", false).unwrap(), ["10.0.0.1"]);
        assert_eq!(hosts("", false).unwrap(), Vec::<String>::new());
        assert_eq!(hosts("host,0", true).unwrap(), ["host", "10.0.0.1"]);
    }

    #[test]
    fn dead_and_missing_nodes_are_named_as_they_were_written() {
        for (spec, number) in [("1", "1"), ("09", "09"), ("0-2", "1"), ("0,7", "7")] {
            let expected = SpecError::NoSuchNode(number.into());
            assert_eq!(hosts(spec, false), Err(expected), "{spec}");
        }
    }

    #[test]
    fn a_specification_that_means_nothing_is_invalid() {
        for spec in ["host", "0,,1", ",0", "1234", "a-b", "1-", "-1", "1-2-3", "+1", "1.5"] {
            assert_eq!(hosts(spec, false), Err(SpecError::Invalid), "{spec}");
        }
        assert_eq!(hosts("host-a", true), Err(SpecError::Invalid));
    }

    #[test]
    fn a_single_live_node_among_trailing_dead_slots_needs_no_header() {
        let several = |file: &[u8]| resolve(b"all", file, false, &mut healthy()).unwrap().several;
        assert!(!several(b"10.0.0.1\n#\n\n"));
        assert!(several(b"#\n10.0.0.1\n"));
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_reported() {
        let mut stub = Stub(Err("broken"), "nothing\n");
        assert_eq!(
            resolve(b"ok", NODES, false, &mut stub),
            Err(SpecError::NoStatus("broken".into()))
        );
        assert_eq!(resolve(b"any", NODES, false, &mut stub), Err(SpecError::NoneAvailable));
    }
}
