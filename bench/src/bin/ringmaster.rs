//! `ringmaster`: so far `ringmaster bench`, our daemon beside the C daemon on this machine.
//!
//! Role: command line and printing. What is measured: `ringmaster_bench::compare`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use ringmaster_bench::{
    compare::{Options, Sample, Scene, compare},
    crowd::Load,
    mover::{self, Order},
    node::Kind,
    report,
    several::{self, NodesLoad, Placement},
    targets,
};
use ringmaster_compat::prerequisite;

/// Exit status when `--targets` was given and one is missed or was not measured.
const TARGET_MISSED: u8 = 2;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("bench", bench)) => run(bench),
        Some((mover::SUBCOMMAND, client)) => be_client(client),
        _ => unreachable!("clap knows no other sub-command and requires one"),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(TARGET_MISSED),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let list = |name: &'static str| Arg::new(name).long(name).value_delimiter(',');
    let loads: Vec<_> = Load::ALL.iter().map(|load| load.name()).collect();
    let loads = [loads, NodesLoad::ALL.iter().map(|load| load.name()).collect()].concat();
    let kinds = Kind::ALL.map(Kind::name);
    let bench = Command::new("bench")
        .about("Our daemon beside the C daemon, interleaved rounds")
        .arg(
            list("nodes")
                .value_parser(value_parser!(u16).range(1..=6))
                .help("Clusters of so many nodes, led by one more C node (else one node each)"),
        )
        .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("See that it works"))
        .arg(
            Arg::new("pin")
                .long("pin")
                .action(ArgAction::SetTrue)
                .help("Daemons on processor 0, the load on 1; with --nodes: all on 0"),
        )
        .arg(
            Arg::new("free-and-pinned")
                .long("free-and-pinned")
                .action(ArgAction::SetTrue)
                .requires("nodes")
                .conflicts_with("pin")
                .help("With --nodes: where the kernel wants, then all on processor 0"),
        )
        .arg(
            Arg::new("targets")
                .long("targets")
                .action(ArgAction::SetTrue)
                .help("Judge the figures by the project's targets; exit with 2 if one is missed"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_parser(value_parser!(u16).range(1..))
                .help("Measurements of each daemon"),
        )
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_parser(value_parser!(u64).range(1..=600))
                .help("Length of one measurement"),
        )
        .arg(list("clients").value_parser(value_parser!(u16).range(1..)).help("Numbers of clients"))
        .arg(list("loads").value_parser(PossibleValuesParser::new(loads)).help("Loads"))
        .arg(list("daemons").value_parser(PossibleValuesParser::new(kinds)).help("Daemons"))
        .arg(
            Arg::new("ctdbd")
                .long("ctdbd")
                .value_parser(value_parser!(PathBuf))
                .help("Our daemon; else the one beside this program"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the figures there too"),
        );
    Command::new("ringmaster")
        .about("Tools around Ringmaster that CTDB does not have")
        .subcommand_required(true)
        .subcommand(bench)
        .subcommand(
            Command::new(mover::SUBCOMMAND)
                .about("A client of `bench --nodes`, started by it")
                .hide(true)
                .arg(Arg::new("order").num_args(1..).value_parser(value_parser!(OsString))),
        )
}

fn be_client(matches: &ArgMatches) -> Result<bool> {
    let order = matches.get_many::<OsString>("order").into_iter().flatten().cloned();
    let order = Order::from_args(&order.collect::<Vec<_>>())?;
    let done = mover::work(&order);
    done.with_context(|| format!("{} client, process {}", order.name(), std::process::id()))?;
    Ok(true)
}

fn options(matches: &ArgMatches) -> Result<Options> {
    let ctdbd = match matches.get_one::<PathBuf>("ctdbd") {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("where this program is")?.with_file_name("ctdbd"),
    };
    let mut options =
        if matches.get_flag("quick") { Options::quick(ctdbd) } else { Options::full(ctdbd) };
    options.pin = matches.get_flag("pin");
    if let Some(rounds) = matches.get_one::<u16>("rounds") {
        options.rounds = usize::from(*rounds);
    }
    if let Some(seconds) = matches.get_one::<u64>("seconds") {
        options.duration = Duration::from_secs(*seconds);
    }
    if let Some(clients) = matches.get_many::<u16>("clients") {
        options.clients = clients.copied().map(usize::from).collect();
    }
    if let Some(names) = matches.get_many::<String>("loads") {
        let names: Vec<_> = names.collect();
        options.loads.retain(|load| names.iter().any(|name| *name == load.name()));
    }
    if let Some(names) = matches.get_many::<String>("daemons") {
        let names: Vec<_> = names.collect();
        options.kinds.retain(|kind| names.iter().any(|name| *name == kind.name()));
    }
    Ok(options)
}

fn several_options(
    options: &Options,
    matches: &ArgMatches,
    nodes: Vec<usize>,
) -> Result<several::Options> {
    let wanted = matches.get_many::<String>("loads").map(|names| names.collect::<Vec<_>>());
    let is_wanted = |load: &NodesLoad| {
        wanted.as_ref().is_none_or(|names| names.iter().any(|name| *name == load.name()))
    };
    let mut kinds = options.kinds.clone();
    if matches.get_many::<String>("daemons").is_none() {
        kinds.retain(|kind| *kind != Kind::OursEpoll);
    }
    let placements = match (matches.get_flag("free-and-pinned"), options.pin) {
        (true, _) => vec![Placement::Free, Placement::OneCore],
        (false, true) => vec![Placement::OneCore],
        (false, false) => vec![Placement::Free],
    };
    Ok(several::Options {
        kinds,
        loads: NodesLoad::ALL.into_iter().filter(is_wanted).collect(),
        nodes,
        placements,
        rounds: options.rounds,
        duration: options.duration,
        warm_up: options.warm_up,
        ctdbd: options.ctdbd.clone(),
        client: std::env::current_exe().context("where this program is")?,
    })
}

/// `false`: a target was missed.
fn run(matches: &ArgMatches) -> Result<bool> {
    let options = options(matches)?;
    if let Some(reason) = prerequisite::missing_for_c_cluster() {
        println!("skipped: {reason}");
        return Ok(true);
    }
    let ours = options.kinds.iter().any(|kind| *kind != Kind::C);
    ensure!(
        !ours || options.ctdbd.is_file(),
        "{} is missing; build ringmaster-daemon and ringmaster-eventd or name it with --ctdbd",
        options.ctdbd.display()
    );
    let nodes = matches.get_many::<u16>("nodes");
    let nodes: Vec<_> = nodes.into_iter().flatten().copied().map(usize::from).collect();
    let samples = if nodes.is_empty() {
        compare(&options, say)?
    } else {
        several::compare(&several_options(&options, matches, nodes)?, say)?
    };
    print!("{}", report::table(&samples));
    println!(
        "\nMedians of {} interleaved rounds of {:?}; ratios are medians of the rounds' ratios. Busy and \
         waiting (for a processor that others had): daemon + load.",
        options.rounds, options.duration
    );
    if samples.iter().any(|sample| matches!(sample.load, Scene::Nodes(..))) {
        println!(
            "Clients of ring, storm and g_lock are processes of their own. CPU: of all nodes but the leader, \
             with their threads and children (lock helpers), also those that have ended; per record \
             asked for, or per message."
        );
    }
    if samples.is_empty() {
        println!("Nothing measured: no load of --loads belongs to this kind of bench.");
    } else if samples.iter().all(|sample| sample.calls.is_none()) {
        println!("No system calls counted: `perf` is missing or may not count them.");
    }
    if let Some(path) = matches.get_one::<PathBuf>("json") {
        let text = serde_json::to_string_pretty(&report::to_json(&samples))?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !matches.get_flag("targets") {
        return Ok(true);
    }
    let targets = targets::targets(&samples);
    print!("\n{}", targets::table(&targets));
    Ok(targets.iter().all(targets::Target::is_met))
}

fn say(sample: &Sample) {
    eprintln!(
        "{} clients={} round={} {}: {:.0}/s, daemon busy {:.0} % waits {:.0} %, load busy {:.0} % \
         waits {:.0} %, longest silence {} ms",
        sample.load.name(),
        sample.clients,
        sample.round,
        sample.kind.name(),
        sample.rate,
        sample.daemon_share * 100.0,
        sample.daemon_waits * 100.0,
        sample.load_share * 100.0,
        sample.load_waits * 100.0,
        sample.silence.as_millis(),
    );
}
