//! The table of all sub-commands.
//!
//! Role: the one list that the parser, the usage texts, the completions, the manual page and the
//! JSON reference are made from. Handlers and key lists live with their family in `commands/`.
//! Invariants
//! - Classic commands stand in the order of the C tool's usage text.
//! - Names are unique.
//!
//! Origin: `docs/spec/admin-interface.md` 1.4.

use crate::command::Run::{Any, Local, Own};
use crate::command::{Command, Run};
use crate::commands::{
    address, admin, backup, cluster, databases, debug, dump, helper, interface, node, persistent,
    process, statistics, tdb_file, tickle, tunables, version, volatile,
};

const DB: &str = "<dbname|dbid>";

const fn new(name: &'static str, help: &'static str, run: Run) -> Command {
    Command::new(name, help, run)
}

/// Looks a command word up. Names are matched whole, as in C.
#[must_use]
pub fn find(word: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == word)
}

/// Every command.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    new("version", "show version of ctdb", Local(version::version))
        .arguments_from("", 0).reports(version::VERSION)
        .about("Prints the Samba version that this node announces to its cluster. Needs no daemon. --json adds the version of this implementation."),
    new("status", "show node status", Any(node::status))
        .reports(node::STATUS)
        .about("Shows all nodes with their flags, the generation and vnn map, the recovery mode and the leader, as the asked node sees them. Waits for the leader's broadcast at most as long as -t says. The exit status is 0 whatever the health."),
    new("uptime", "show node uptime", Any(node::uptime))
        .arguments_from("", 0).reports(node::UPTIME)
        .about("Shows since when the daemon runs and when the last recovery ended."),
    new("ping", "ping a node", Any(node::ping))
        .arguments_from("", 0).reports(node::PING)
        .about("Sends a request to the daemon and shows the time until the answer and the number of its clients."),
    new("runstate", "get/check runstate of a node", Any(node::runstate))
        .arguments_from("[setup|first_recovery|startup|running]", 0).reports(node::RUNSTATE)
        .about("Prints how far the daemon's start has come. With arguments: succeeds only if the state is one of them."),
    new("getvar", "get a tunable variable", Any(tunables::getvar))
        .arguments("<name>", 1, 1).reports(tunables::GETVAR)
        .about("Prints the value of a tunable. Names ignore case."),
    new("setvar", "set a tunable variable", Any(tunables::setvar))
        .arguments("<name> <value>", 2, 2)
        .about("Sets a tunable on one node until its daemon stops. Permanent values belong into ctdb.tunables."),
    new("listvars", "list tunable variables", Any(tunables::listvars))
        .reports(tunables::LISTVARS)
        .about("Lists all tunables and their values."),
    new("statistics", "show ctdb statistics", Any(statistics::statistics))
        .reports(statistics::STATISTICS)
        .about("Shows the daemon's counters since its start or the last statisticsreset."),
    new("statisticsreset", "reset ctdb statistics", Any(statistics::statisticsreset))
        .about("Sets the counters back to 0."),
    new("stats", "show rolling statistics", Any(statistics::stats))
        .arguments("[count]", 0, 1).reports(statistics::STATS)
        .about("Shows the counters of past intervals (tunable StatHistoryInterval), the newest first."),
    new("ip", "show public ips", Any(address::ip))
        .arguments("[all]", 0, 1).reports(address::IP)
        .about("Lists the public addresses that the node knows and who serves them; with all, those of every active node. -v adds interfaces."),
    new("ipinfo", "show public ip details", Any(address::ipinfo))
        .arguments("<ip>", 1, 1).reports(address::IPINFO)
        .about("Shows one public address with the interfaces it can live on."),
    new("ifaces", "show interfaces", Any(interface::ifaces))
        .reports(interface::IFACES)
        .about("Lists the interfaces of public addresses, their link state and how many addresses use them."),
    new("setifacelink", "set interface link status", Any(interface::setifacelink))
        .arguments("<iface> up|down", 2, 2)
        .about("Tells the daemon that an interface has or has lost its link. Event scripts do this."),
    new("process-exists", "check if a process exists on a node", Any(process::process_exists))
        .arguments("<pid> [<srvid>]", 1, 2).reports(process::PROCESS_EXISTS)
        .about("Succeeds if the process is a client of the daemon and, if given, has registered the message port."),
    new("getdbmap", "show attached databases", Any(databases::getdbmap))
        .reports(databases::GETDBMAP)
        .about("Lists the databases the daemon has attached."),
    new("getdbstatus", "show database status", Any(databases::getdbstatus))
        .arguments(DB, 1, 1).reports(databases::GETDBSTATUS)
        .about("Shows the attributes and the health of one database."),
    new("catdb", "dump cluster-wide ctdb database", Own(dump::catdb))
        .arguments(DB, 1, 1).reports(dump::CATDB)
        .about("Prints all records of a database, each from the node that owns it, without empty ones."),
    new("cattdb", "dump local ctdb database", Own(dump::cattdb))
        .arguments(DB, 1, 1).reports(dump::CATTDB)
        .about("Prints the records of this node's copy of a database, empty ones included."),
    new("getcapabilities", "show node capabilities", Any(cluster::getcapabilities))
        .reports(cluster::GETCAPABILITIES)
        .about("Shows whether the node may become leader and may be location master."),
    new("pnn", "show the pnn of the currnet node", Own(node::pnn))
        .arguments_from("", 0).reports(node::PNN)
        .about("Prints the number of this node."),
    new("lvs", "show lvs configuration", Own(helper::lvs))
        .arguments("leader|list|status", 1, 1).reports(helper::LVS)
        .about("Shows the LVS group: its leader, its usable nodes, or the status of all members."),
    new("setdebug", "set debug level", Any(debug::setdebug))
        .arguments("ERROR|WARNING|NOTICE|INFO|DEBUG", 1, 1)
        .about("Sets how much the daemon logs. Prefixes of the words and the numbers 0 to 10 are accepted."),
    new("getdebug", "get debug level", Any(debug::getdebug))
        .reports(debug::GETDEBUG)
        .about("Prints how much the daemon logs."),
    new("attach", "attach a database", Own(databases::attach))
        .arguments("<dbname> [persistent|replicated]", 1, 2)
        .about("Attaches a database on all nodes, and creates it where it does not exist."),
    new("detach", "detach database(s)", Own(databases::detach))
        .arguments_from("<dbname|dbid> ...", 1)
        .about("Detaches volatile databases from all nodes. Every node must have AllowClientDBAttach set to 0."),
    new("dumpmemory", "dump ctdbd memory map", Any(debug::dumpmemory))
        .arguments_from("", 0).reports(debug::DUMPMEMORY)
        .about("Prints what the daemon's memory is used for."),
    new("rddumpmemory", "dump recoverd memory map", Any(debug::rddumpmemory))
        .arguments_from("", 0).reports(debug::RDDUMPMEMORY)
        .about("Prints what the memory of the cluster manager is used for."),
    new("getpid", "get ctdbd process ID", Any(node::getpid))
        .arguments_from("", 0).reports(node::GETPID)
        .about("Prints the process id of the daemon."),
    new("disable", "disable a node", Any(admin::disable))
        .about("Takes all public addresses from the node; its databases stay in use. Waits until the cluster has noticed."),
    new("enable", "enable a node", Any(admin::enable))
        .about("Undoes disable."),
    new("stop", "stop a node", Any(admin::stop))
        .about("Takes the node out of the cluster while its daemon keeps running: no addresses, no databases."),
    new("continue", "continue a stopped node", Any(admin::resume))
        .about("Undoes stop."),
    new("ban", "ban a node", Any(admin::ban))
        .arguments("<bantime>", 1, 1)
        .about("Takes the node out of the cluster for a number of seconds."),
    new("unban", "unban a node", Any(admin::unban))
        .about("Ends a ban early."),
    new("shutdown", "shutdown ctdb daemon", Any(admin::shutdown))
        .about("Stops the daemon in order. For the own node: returns when it has closed its socket."),
    new("recover", "force recovery", Any(cluster::recover))
        .about("Asks the leader for a recovery of the databases and waits until it is over."),
    new("sync", "run ip reallocation (deprecated)", Any(address::ipreallocate))
        .usage_of("ipreallocate")
        .about("The same as ipreallocate."),
    new("ipreallocate", "run ip reallocation", Any(address::ipreallocate))
        .about("Asks the leader to distribute the public addresses anew, and waits until it has."),
    new("gratarp", "send a gratuitous arp", Any(address::gratarp))
        .arguments("<ip> <interface>", 2, 2)
        .about("Announces an address on an interface of the node: ARP for IPv4, neighbour advertisement for IPv6."),
    new("tickle", "send a tcp tickle ack", Local(tickle::tickle))
        .arguments("<srcip:port> <dstip:port>", 0, 2)
        .about("Sends a TCP acknowledgement that pretends to come from the second address to the first, so that the client notices that its connection is gone. Without arguments: one pair per line from standard input. Needs no daemon."),
    new("gettickles", "get the list of tickles", Any(tickle::gettickles))
        .arguments("<ip> [<port>]", 1, 2).reports(tickle::GETTICKLES)
        .about("Lists the TCP connections registered for a public address, optionally those of one server port."),
    new("addtickle", "add a tickle", Any(tickle::addtickle))
        .arguments("<ip>:<port> <ip>:<port>", 0, 2)
        .about("Registers a TCP connection (client, server) to a public address, to be tickled after a failover. Without arguments: one pair per line from standard input."),
    new("deltickle", "delete a tickle", Any(tickle::deltickle))
        .arguments("<ip>:<port> <ip>:<port>", 0, 2)
        .about("Forgets a registered connection. Without arguments: one pair per line from standard input."),
    new("listnodes", "list nodes in the cluster", Local(node::listnodes))
        .reports(node::LISTNODES)
        .about("Lists the addresses in the nodes file, without deleted nodes. Needs no daemon."),
    new("reloadnodes", "reload the nodes file all nodes", Own(cluster::reloadnodes))
        .arguments_from("", 0)
        .about("Compares the nodes files of all connected nodes and, if they agree, makes every daemon read its own again."),
    new("moveip", "move an ip address to another node", Own(address::moveip))
        .arguments("<ip> <node>", 2, 2)
        .about("Moves a public address to another node. Lasts only with NoIPFailback=1 and an allocation that is not deterministic."),
    new("addip", "add an ip address to a node", Any(address::addip))
        .arguments("<ip/mask> <iface>", 2, 2)
        .about("Makes a public address known to the node until its daemon stops. The file public_addresses is not changed."),
    new("delip", "delete an ip address from a node", Any(address::delip))
        .arguments("<ip>", 1, 1)
        .about("Makes the node forget a public address, releasing it if served. The file public_addresses is not changed."),
    new("backupdb", "backup a database into a file", Own(backup::backupdb))
        .arguments("<dbname|dbid> <file>", 2, 2)
        .about("Writes the records of this node's copy of a database into a file."),
    new("restoredb", "restore a database from a file", Own(backup::restoredb))
        .arguments("<file> [dbname]", 1, 2)
        .about("Replaces the contents of a database on all nodes by those of a backup."),
    new("dumpdbbackup", "dump database from a backup file", Local(backup::dumpdbbackup))
        .arguments("<file>", 1, 1).reports(backup::DUMPDBBACKUP).misuse_lists_all()
        .about("Prints the records of a backup. Needs no daemon."),
    new("wipedb", "wipe the contents of a database.", Own(backup::wipedb))
        .arguments(DB, 1, 1)
        .about("Removes all records of a database on all nodes."),
    new("leader", "show the pnn of the leader", Any(node::leader))
        .arguments_from("", 0).reports(node::LEADER)
        .about("Prints the number of the leader, or UNKNOWN when none is heard within the time of -t."),
    new("event", "event and event script commands", Local(helper::event))
        .arguments_from("", 0).reports(helper::EVENT)
        .about("Runs events and shows their results, lists, enables and disables event scripts: run TIMEOUT COMPONENT EVENT [ARGS], status COMPONENT EVENT, script list COMPONENT, script enable COMPONENT SCRIPT, script disable COMPONENT SCRIPT. The only component is legacy."),
    new("scriptstatus", "show event script status", Local(helper::scriptstatus))
        .arguments("[init|setup|startup|monitor|takeip|releaseip|ipreallocated]", 0, 1)
        .reports(helper::SCRIPTSTATUS)
        .about("Shows the results of the last run of an event (default: monitor). The exit status is always 0."),
    new("natgw", "show natgw configuration", Own(helper::natgw))
        .arguments("leader|list|status", 1, 1).reports(helper::NATGW)
        .about("Shows the NAT gateway group: its leader, its nodes, or the status of all members."),
    new("getreclock", "get recovery lock file", Any(cluster::getreclock))
        .reports(cluster::GETRECLOCK)
        .about("Prints the configured cluster lock; nothing if there is none."),
    new("setlmasterrole", "set LMASTER role", Any(cluster::setlmasterrole))
        .arguments("on|off", 1, 1)
        .about("Sets whether the node may be location master, until its daemon stops."),
    new("setleaderrole", "set LEADER role", Any(cluster::setleaderrole))
        .arguments("on|off", 1, 1)
        .about("Sets whether the node may become leader, until its daemon stops."),
    new("setdbreadonly", "enable readonly records", Any(databases::setdbreadonly))
        .arguments(DB, 1, 1)
        .about("Lets several nodes hold read-only copies of the records of a volatile database."),
    new("setdbsticky", "enable sticky records", Any(databases::setdbsticky))
        .arguments(DB, 1, 1)
        .about("Lets hot records of a volatile database stay on a node for a while."),
    new("pfetch", "fetch record from persistent database", Own(persistent::pfetch))
        .arguments("<dbname|dbid> <key>", 2, 2).reports(persistent::PFETCH)
        .about("Prints the value of a record of a persistent or replicated database."),
    new("pstore", "write record to persistent database", Own(persistent::pstore))
        .arguments("<dbname|dbid> <key> <value>", 3, 3)
        .about("Writes a record of a persistent or replicated database, in one transaction."),
    new("pdelete", "delete record from persistent database", Own(persistent::pdelete))
        .arguments("<dbname|dbid> <key>", 2, 2)
        .about("Deletes a record of a persistent or replicated database, in one transaction."),
    new("ptrans", "update a persistent database (from file or stdin)", Own(persistent::ptrans))
        .arguments("<dbname|dbid> [<file>]", 1, 2)
        .about("Changes several records of a persistent or replicated database in one transaction. Input lines: \"KEY\" \"VALUE\"; an empty value deletes."),
    new("tfetch", "fetch a record", Any(tdb_file::tfetch))
        .arguments("<tdb-file> <key> [<file>]", 2, 3).reports(tdb_file::TFETCH)
        .about("Prints a record of a TDB file, or writes its value into a file."),
    new("tstore", "store a record", Any(tdb_file::tstore))
        .arguments("<tdb-file> <key> <data> [<rsn> <dmaster> <flags>]", 3, 5)
        .about("Writes a record into a TDB file. For repairs: no daemon may use the file."),
    new("readkey", "read value of a database key", Own(volatile::readkey))
        .arguments("<dbname|dbid> <key> [readonly]", 2, 3).reports(volatile::READKEY)
        .about("Migrates a record of a volatile database to this node and prints it."),
    new("writekey", "write value for a database key", Own(volatile::writekey))
        .arguments("<dbname|dbid> <key> <value>", 3, 3)
        .about("Migrates a record of a volatile database to this node and writes it."),
    new("deletekey", "delete a database key", Own(volatile::deletekey))
        .arguments("<dbname|dbid> <key>", 2, 2)
        .about("Migrates a record of a volatile database to this node and deletes it."),
    new("checktcpport", "check if a service is bound to a specific tcp port or not", Local(process::checktcpport))
        .arguments("<port>", 1, 1).reports(process::CHECKTCPPORT).misuse_lists_all()
        .about("Exit status 0: nothing is bound to the IPv4 TCP port; 98: something is. Needs no daemon."),
    new("getdbseqnum", "get database sequence number", Own(databases::getdbseqnum))
        .arguments(DB, 1, 1).reports(databases::GETDBSEQNUM)
        .about("Prints the sequence number of a database."),
    new("nodestatus", "show and return node status", Any(node::nodestatus))
        .arguments("[all|<pnn-list>]", 0, 1).reports(node::NODESTATUS)
        .about("Shows the flags of this node, of all, or of those listed (0,2). The exit status is the bitwise OR of their flags: 1 disconnected, 2 unhealthy, 4 disabled, 8 banned, 32 stopped, 64 unknown."),
    new("dbstatistics", "show database statistics", Any(statistics::dbstatistics))
        .arguments(DB, 1, 1).reports(statistics::DBSTATISTICS)
        .about("Shows the counters of one database and its hottest records."),
    new("reloadips", "reload the public addresses file", Own(address::reloadips))
        .arguments("[all|<pnn-list>]", 0, 1)
        .about("Makes nodes read their file public_addresses again, then distributes the addresses anew."),
    new("pushrecord", "push a record to all nodes", Own(volatile::pushrecord))
        .arguments("<dbname|dbid> <key> <value>", 3, 3).newer()
        .about("Writes a record of a volatile database and sends it to all active nodes. A test aid."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_command_is_described() {
        let names: BTreeSet<_> = COMMANDS.iter().map(|command| command.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
        for command in COMMANDS {
            assert!(!command.about.is_empty(), "{}", command.name);
        }
    }

    #[test]
    fn classic_commands_are_those_of_the_4_17_tool() {
        assert_eq!(COMMANDS.iter().filter(|command| command.classic).count(), 77);
        assert!(find("status").is_some());
        assert!(find("stat").is_none(), "no abbreviations");
    }
}
