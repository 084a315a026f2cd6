//! `ctdb_natgw` and `ctdb_lvs`: who in a group of nodes leads, who can be used, how they all are.
//!
//! Role: the group's file and the status of the nodes, put together. Both come from outside: the
//! file's place from the options of the event script, the status from the `ctdb` tool.
//! Origin: `docs/spec/admin-interface.md` 2.9; `ctdb/tools/ctdb_natgw`, `ctdb/tools/ctdb_lvs`.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    path::PathBuf,
    process::{Command, Output as Ran, Stdio},
};

use crate::output::Output;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// NAT gateway.
    Natgw,
    /// Linux virtual server.
    Lvs,
}

impl Group {
    const fn program(self) -> &'static str {
        match self {
            Self::Natgw => "ctdb_natgw",
            Self::Lvs => "ctdb_lvs",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Natgw => "NAT gateway",
            Self::Lvs => "LVS",
        }
    }

    const fn variable(self) -> &'static str {
        match self {
            Self::Natgw => "CTDB_NATGW_NODES",
            Self::Lvs => "CTDB_LVS_NODES",
        }
    }

    const fn script(self) -> &'static str {
        match self {
            Self::Natgw => "11.natgw",
            Self::Lvs => "91.lvs",
        }
    }

    const fn default_file(self) -> &'static str {
        match self {
            Self::Natgw => "natgw_nodes",
            Self::Lvs => "lvs_nodes",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Natgw => {
                "  leader     Display node number and private IP address of leader node\n  \
                   list       List private IP addresses of nodes in group, annotate leader\n  \
                   status     Show status of nodes in NAT gateway group"
            }
            Self::Lvs => {
                "  leader     Display node number of leader node\n  \
                   list       List node number and private IP address of usable nodes in group\n  \
                   status     Show status of all nodes in LVS group"
            }
        }
    }
}

/// Status of `leader` when nobody can lead.
const NOBODY_NATGW: u8 = 2;
const NOBODY_LVS: u8 = 255;
/// Status of `ctdb_lvs` when the nodes' status is not to be had.
const NO_STATUS_LVS: u8 = 10;

/// A line of the group's file.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    ip: String,
    options: String,
}

impl Member {
    fn may_lead(&self) -> bool {
        self.options.is_empty()
    }
}

/// A node, as the tool describes it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Node {
    pnn: String,
    ip: String,
    disconnected: bool,
    unknown: bool,
    disabled: bool,
    unhealthy: bool,
    stopped: bool,
    inactive: bool,
}

/// Why there is no answer.
struct Failed {
    message: Option<String>,
    status: u8,
}

/// Runs the tool. `program` is its name as it was called.
#[must_use]
pub fn run(group: Group, program: &OsStr, args: &[OsString]) -> Output {
    let command = args.first().map(|arg| arg.to_string_lossy()).unwrap_or_default();
    let answer = match command.as_ref() {
        "leader" => leader(group),
        "list" => list(group),
        "status" => status(group),
        _ => {
            let mut output = Output::default();
            let program = program.to_string_lossy();
            output.out(format!("{program} <option>\n\n<option> is one of:\n{}", group.help()));
            return output.with_status(1);
        }
    };
    let mut output = Output::default();
    match answer {
        Ok(text) => output.stdout = text.into_bytes(),
        Err(failed) => {
            if let Some(message) = failed.message {
                output.err(message);
            }
            output.status = failed.status;
        }
    }
    output
}

fn leader(group: Group) -> Result<String, Failed> {
    let members = members(group)?;
    let nodes = nodes();
    match group {
        Group::Natgw => match natgw_leader(&members, &nodes) {
            Some(node) => Ok(format!("{} {}\n", node.pnn, node.ip)),
            None => Err(Failed { message: None, status: NOBODY_NATGW }),
        },
        Group::Lvs => {
            if nodes.is_empty() {
                return Err(Failed { message: None, status: NO_STATUS_LVS });
            }
            let may_lead: Vec<&Member> = members.iter().filter(|one| one.may_lead()).collect();
            match usable(&may_lead, &nodes).first() {
                Some(node) => Ok(format!("{}\n", node.pnn)),
                None => Err(Failed { message: None, status: NOBODY_LVS }),
            }
        }
    }
}

/// The first who is well, else who is not worse than unhealthy or banned, else who is there at all.
fn natgw_leader<'a>(members: &[Member], nodes: &'a [Node]) -> Option<&'a Node> {
    let listed = |node: &&Node| members.iter().any(|one| one.may_lead() && one.ip == node.ip);
    let grades: [fn(&Node) -> bool; 3] = [
        |node| !(node.unknown || node.disabled || node.unhealthy || node.inactive),
        |node| !(node.disconnected || node.disabled || node.stopped),
        |node| !(node.disconnected || node.disabled),
    ];
    let best = |good: fn(&Node) -> bool| nodes.iter().filter(listed).find(|node| good(node));
    grades.into_iter().find_map(best)
}

/// All who are well; if nobody is, all who are active.
fn usable<'a>(members: &[&Member], nodes: &'a [Node]) -> Vec<&'a Node> {
    let listed = |node: &&Node| members.iter().any(|one| one.ip == node.ip);
    let grades: [fn(&Node) -> bool; 2] = [
        |node| !(node.unknown || node.disabled || node.unhealthy || node.inactive),
        |node| !(node.disabled || node.inactive),
    ];
    let all = |good: fn(&Node) -> bool| -> Vec<&Node> {
        nodes.iter().filter(listed).filter(|node| good(node)).collect()
    };
    grades.into_iter().map(all).find(|found| !found.is_empty()).unwrap_or_default()
}

fn list(group: Group) -> Result<String, Failed> {
    let members = members(group)?;
    let nodes = nodes();
    let mut text = String::new();
    match group {
        Group::Natgw => {
            let leader = natgw_leader(&members, &nodes).map(|node| node.ip.as_str());
            for Member { ip, options } in &members {
                let leads = if Some(ip.as_str()) == leader { "LEADER" } else { "" };
                let comma = if leads.is_empty() || options.is_empty() { "" } else { "," };
                let tab = if leads.is_empty() && options.is_empty() { "" } else { "\t" };
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{ip}{tab}{leads}{comma}{options}");
            }
        }
        Group::Lvs => {
            if nodes.is_empty() {
                return Err(Failed { message: None, status: NO_STATUS_LVS });
            }
            for node in usable(&members.iter().collect::<Vec<_>>(), &nodes) {
                let _ = writeln!(text, "{} {}", node.pnn, node.ip);
            }
        }
    }
    Ok(text)
}

fn status(group: Group) -> Result<String, Failed> {
    /// The tool's own failure, as opposed to a node's.
    const FAILED: i32 = 255;
    let members = members(group)?;
    let ran = tool(&["nodestatus", "all"]);
    let text = ran.as_ref().map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned());
    let text = text.unwrap_or_default();
    match group {
        Group::Natgw if ran.is_none_or(|ran| ran.status.code() == Some(FAILED)) => {
            let message = "ctdb_natgw: Unable to get status of nodes".to_owned();
            return Err(Failed { message: Some(message), status: 1 });
        }
        Group::Lvs if text.is_empty() => {
            return Err(Failed { message: None, status: NO_STATUS_LVS });
        }
        _ => {}
    }
    let of_group = |line: &&str| {
        let ip = line.split_whitespace().nth(1);
        ip.is_some_and(|ip| members.iter().any(|member| member.ip == ip))
    };
    Ok(text.lines().filter(of_group).fold(String::new(), |text, line| text + line + "\n"))
}

/// The group's file. A comment is a member whom no node resembles, as in C.
fn members(group: Group) -> Result<Vec<Member>, Failed> {
    let program = group.program();
    let failed = |message: String| Failed { message: Some(message), status: 1 };
    let file = file(group);
    let not_found = || {
        let (kind, file) = (group.kind(), file.display());
        failed(format!("{program}: {kind} nodes file \"{file}\" not found"))
    };
    let text = std::fs::read_to_string(&file).map_err(|_| not_found())?;
    let members = parse(&text);
    let wrong = |member: &&Member| {
        !member.ip.starts_with('#') && !["", "follower-only"].contains(&member.options.as_str())
    };
    if let Some(Member { options, .. }) = members.iter().find(wrong) {
        let file = file.display();
        return Err(failed(format!("{program}: Invalid options \"{options}\" in  \"{file}\"")));
    }
    Ok(members)
}

fn parse(text: &str) -> Vec<Member> {
    let member = |line: &str| {
        let (ip, options) = line.trim().split_once([' ', '\t']).unwrap_or((line.trim(), ""));
        Member { ip: ip.to_owned(), options: options.trim().to_owned() }
    };
    text.trim_end_matches('\n').lines().map(member).collect()
}

/// The options are shell: a shell reads them.
fn file(group: Group) -> PathBuf {
    let base = std::env::var_os("CTDB_BASE").filter(|base| !base.is_empty());
    let base = PathBuf::from(base.unwrap_or_else(|| "/etc/ctdb".into()));
    let variable = group.variable();
    let program = format!(
        ". \"$CTDB_BASE/functions\" && load_script_options failover {} && printf %s \"${variable}\"",
        group.script()
    );
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &program, group.program()]).env("CTDB_BASE", &base);
    let ran = shell.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let named = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned());
    match named.unwrap_or_default() {
        named if named.is_empty() => base.join(group.default_file()),
        named => named.into(),
    }
}

/// None when the tool cannot say.
fn nodes() -> Vec<Node> {
    let ran = tool(&["-X", "nodestatus", "all"]);
    let text = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned());
    text.unwrap_or_default().lines().skip(1).filter_map(node).collect()
}

fn node(line: &str) -> Option<Node> {
    let fields: Vec<&str> = line.trim_matches('|').split('|').collect();
    let [pnn, ip, disconnected, unknown, _banned, disabled, unhealthy, stopped, inactive, ..] =
        fields[..]
    else {
        return None;
    };
    let set = |field: &str| field != "0";
    Some(Node {
        pnn: pnn.to_owned(),
        ip: ip.to_owned(),
        disconnected: set(disconnected),
        unknown: set(unknown),
        disabled: set(disabled),
        unhealthy: set(unhealthy),
        stopped: set(stopped),
        inactive: set(inactive),
    })
}

/// `$CTDB`, or `ctdb`, with these arguments.
fn tool(args: &[&str]) -> Option<Ran> {
    let named = std::env::var("CTDB").ok().filter(|named| !named.trim().is_empty());
    let line = named.unwrap_or_else(|| "ctdb".into());
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next()?);
    command.args(words).args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    command.output().ok()
}
