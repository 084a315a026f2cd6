//! The demo's command line.

use anyhow::{Context, Result, bail};

use super::fault::Fault;

pub(super) const USAGE: &str = "\
usage: cargo xtask demo [--nodes N] [--fault FAULT] [--c-daemon | --mixed] [--check] [--keep]

  --nodes N      hosts with a daemon: 1 to 16, 3 by default; with 1 a file goes through and no fault
                 is shown, for nobody could take over
  --fault FAULT  what happens to the node that serves the copy:
                   kill   SIGKILL of ctdbd (default)
                   power  its cable is cut and every process on it killed
                   hang   ctdbd stands still (SIGSTOP)
                   stop   `ctdb stop`: planned
  --c-daemon     Debian's daemon instead of ours
  --mixed        Debian's daemon on every second node
  --check        end after the verdict, with status 0 or 1; prints `client pause: N ms`
  --keep         files and logs in target/demo instead of memory, and they stay
";

/// Most nodes that a demo has.
const NODES_MAX: u8 = 16;

/// Whose daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Ours,
    C,
    /// Ours on nodes 0, 2, …, Debian's on 1, 3, …
    Mixed,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) nodes: u8,
    pub(super) check: bool,
    pub(super) keep: bool,
    pub(super) whose: Whose,
    pub(super) fault: Fault,
}

pub(super) fn parse(args: &[String]) -> Result<Options> {
    let mut options =
        Options { nodes: 3, check: false, keep: false, whose: Whose::Ours, fault: Fault::Kill };
    let mut fault_asked = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => options.check = true,
            "--keep" => options.keep = true,
            "--c-daemon" | "--mixed" if options.whose != Whose::Ours => {
                bail!("--c-daemon and --mixed: one of them, once")
            }
            "--c-daemon" => options.whose = Whose::C,
            "--mixed" => options.whose = Whose::Mixed,
            "--nodes" => {
                let number = args.next().map(String::as_str).unwrap_or_default();
                options.nodes = nodes(number)?;
            }
            "--fault" => {
                let name = args.next().map(String::as_str).unwrap_or_default();
                options.fault = Fault::named(name)
                    .with_context(|| format!("--fault '{name}': no such fault\n{USAGE}"))?;
                fault_asked = true;
            }
            other => bail!("no option '{other}'\n{USAGE}"),
        }
    }
    if options.nodes == 1 && (fault_asked || options.whose == Whose::Mixed) {
        bail!("--nodes 1: a fault and a mixed cluster need a second node");
    }
    Ok(options)
}

fn nodes(number: &str) -> Result<u8> {
    let known = number.parse().ok().filter(|nodes| (1..=NODES_MAX).contains(nodes));
    known.with_context(|| format!("--nodes '{number}': a number from 1 to {NODES_MAX} is needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_three_nodes_of_ours_and_a_kill_unless_told() {
        let plain =
            Options { nodes: 3, check: false, keep: false, whose: Whose::Ours, fault: Fault::Kill };
        assert_eq!(parsed("").expect("no option is fine"), plain);
        let all = Options {
            nodes: 16,
            check: true,
            keep: true,
            whose: Whose::Mixed,
            fault: Fault::Power,
        };
        let line = "--nodes 16 --check --keep --mixed --fault power";
        assert_eq!(parsed(line).expect("all options"), all);
        let c = parsed("--c-daemon --nodes 1").expect("one node of C's");
        assert_eq!((c.whose, c.nodes), (Whose::C, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--nodes 17",
            "--nodes 0",
            "--nodes",
            "--nodes x",
            "--chek",
            "--fault flood",
            "--fault",
            "--nodes 1 --fault kill",
            "--nodes 1 --mixed",
            "--mixed --c-daemon",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
