//! `ctdb-sim`: runs seeds, and shows one of them in full.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ringmaster_sim::{Mutation, Options, Sim, Summary, run_seed};

fn command() -> Command {
    let seeds = number("seeds", "100").help("How many");
    let from = number("from", "1").help("The first one");
    let seed = Arg::new("seed").required(true).value_parser(value_parser!(u64)).help("Which");
    Command::new("ctdb-sim")
        .about("Simulated clusters, from a seed")
        .subcommand_required(true)
        .subcommand(with_load(
            Command::new("run")
                .about("Runs many seeds; prints those that break a promise")
                .args([seeds, from]),
        ))
        .subcommand(with_load(
            Command::new("replay").about("Runs one seed and prints what happens").arg(seed),
        ))
}

fn number(name: &'static str, default: &'static str) -> Arg {
    Arg::new(name).long(name).default_value(default).value_parser(value_parser!(u64))
}

fn with_load(command: Command) -> Command {
    command.args([
        number("nodes", "3").help("Nodes of the cluster"),
        number("operations", "200").help("Operations of all clients together"),
        number("clients", "2").help("Clients on every node"),
        number("keys", "3").help("Records that they work on"),
        number("seconds", "30").help("Seconds over which operations and faults are spread"),
        number("faults", "3").help("Faults within that time"),
        Arg::new("no-leases")
            .long("no-leases")
            .action(ArgAction::SetTrue)
            .help("Records are given away as soon as they are asked for"),
        Arg::new("calm")
            .long("calm")
            .action(ArgAction::SetTrue)
            .help("Every message takes about as long as any other"),
        Arg::new("mistake").long("mistake").value_parser(mutation).help("A mistake to be found"),
    ])
}

fn mutation(name: &str) -> Result<Mutation, String> {
    Mutation::of_name(name).ok_or_else(|| format!("no such mistake: {name}"))
}

struct Load {
    nodes: usize,
    clients: usize,
    keys: usize,
    operations: u32,
    seconds: u64,
    faults: u32,
    calm: bool,
    leases: bool,
    mutation: Option<Mutation>,
}

impl Load {
    fn of(matches: &ArgMatches) -> Result<Self> {
        Ok(Self {
            nodes: usize::try_from(value(matches, "nodes"))?,
            clients: usize::try_from(value(matches, "clients"))?,
            keys: usize::try_from(value(matches, "keys"))?,
            operations: u32::try_from(value(matches, "operations"))?,
            seconds: value(matches, "seconds"),
            faults: u32::try_from(value(matches, "faults"))?,
            leases: !matches.get_flag("no-leases"),
            calm: matches.get_flag("calm"),
            mutation: matches.get_one("mistake").copied(),
        })
    }

    /// Every other seed is one with read-only copies.
    fn options(&self, seed: u64, trace: bool) -> Options {
        Options {
            nodes: self.nodes.max(1),
            clients: self.clients.max(1),
            keys: self.keys.max(1),
            operations: self.operations,
            seconds: self.seconds.max(1),
            faults: self.faults,
            readonly: seed % 2 == 1,
            leases: self.leases,
            calm: self.calm,
            mutation: self.mutation,
            trace,
        }
    }
}

fn value(matches: &ArgMatches, name: &str) -> u64 {
    matches.get_one(name).copied().unwrap_or_default()
}

fn main() -> Result<ExitCode> {
    Ok(match command().get_matches().subcommand() {
        Some(("run", of)) => run(value(of, "from"), value(of, "seeds"), &Load::of(of)?),
        Some(("replay", of)) => replay(value(of, "seed"), &Load::of(of)?),
        _ => ExitCode::FAILURE,
    })
}

fn run(from: u64, seeds: u64, load: &Load) -> ExitCode {
    let mut total = Summary::default();
    let mut failed: u64 = 0;
    for seed in from..from.saturating_add(seeds) {
        match run_seed(seed, &load.options(seed, false)) {
            Ok(summary) => total += summary,
            Err(violation) => {
                println!("{violation}");
                failed += 1;
            }
        }
    }
    let minutes = total.micros / 60_000_000;
    println!(
        "{seeds} seeds, {failed} failed: {}.{} simulated hours",
        minutes / 60,
        minutes % 60 / 6
    );
    println!(
        "{} events, {} operations, {} faults, {} recoveries, {} reads of copies, {} vacuumed",
        total.events,
        total.operations,
        total.faults,
        total.recoveries,
        total.copy_reads,
        total.vacuumed
    );
    println!(
        "{} arrivals of records, {} times passed over at most, {} checks",
        total.travels, total.passed_over, total.checks
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, load: &Load) -> ExitCode {
    let mut sim = Sim::new(seed, load.options(seed, true));
    sim.load();
    let result = sim.run();
    for line in sim.trace() {
        println!("{line}");
    }
    match result {
        Ok(summary) => {
            println!("{summary:?}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}
