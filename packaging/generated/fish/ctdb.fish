# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_ctdb_global_optspecs
    string join \n d/debug= t/timelimit= n/node= Y x/separator= X v/verbose T/maxruntime= j/json watch= color= ?/help usage
end

function __fish_ctdb_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_ctdb_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_ctdb_using_subcommand
    set -l cmd (__fish_ctdb_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c ctdb -n "__fish_ctdb_needs_command" -s d -l debug -d 'debug level' -r -f -a "ERROR\t''
WARNING\t''
NOTICE\t''
INFO\t''
DEBUG\t''"
complete -c ctdb -n "__fish_ctdb_needs_command" -s t -l timelimit -d 'timelimit (in seconds)' -r
complete -c ctdb -n "__fish_ctdb_needs_command" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_needs_command" -s x -l separator -d 'specify separator for machine readable output' -r
complete -c ctdb -n "__fish_ctdb_needs_command" -s T -l maxruntime -d 'die if runtime exceeds this limit (in seconds)' -r
complete -c ctdb -n "__fish_ctdb_needs_command" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_needs_command" -l color -d 'colour: auto, always or never' -r -f -a "auto\t''
always\t''
never\t''"
complete -c ctdb -n "__fish_ctdb_needs_command" -s Y -d 'enable machine readable output'
complete -c ctdb -n "__fish_ctdb_needs_command" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_needs_command" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_needs_command" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_needs_command" -s ? -l help -d 'Show this help message'
complete -c ctdb -n "__fish_ctdb_needs_command" -l usage -d 'Display brief usage message'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "version" -d 'show version of ctdb'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "status" -d 'show node status'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "uptime" -d 'show node uptime'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ping" -d 'ping a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "runstate" -d 'get/check runstate of a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getvar" -d 'get a tunable variable'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setvar" -d 'set a tunable variable'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "listvars" -d 'list tunable variables'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "statistics" -d 'show ctdb statistics'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "statisticsreset" -d 'reset ctdb statistics'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "stats" -d 'show rolling statistics'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ip" -d 'show public ips'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ipinfo" -d 'show public ip details'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ifaces" -d 'show interfaces'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setifacelink" -d 'set interface link status'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "process-exists" -d 'check if a process exists on a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getdbmap" -d 'show attached databases'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getdbstatus" -d 'show database status'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "catdb" -d 'dump cluster-wide ctdb database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "cattdb" -d 'dump local ctdb database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getcapabilities" -d 'show node capabilities'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "pnn" -d 'show the pnn of the currnet node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "lvs" -d 'show lvs configuration'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setdebug" -d 'set debug level'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getdebug" -d 'get debug level'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "attach" -d 'attach a database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "detach" -d 'detach database(s)'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "dumpmemory" -d 'dump ctdbd memory map'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "rddumpmemory" -d 'dump recoverd memory map'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getpid" -d 'get ctdbd process ID'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "disable" -d 'disable a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "enable" -d 'enable a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "stop" -d 'stop a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "continue" -d 'continue a stopped node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ban" -d 'ban a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "unban" -d 'unban a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "shutdown" -d 'shutdown ctdb daemon'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "recover" -d 'force recovery'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "sync" -d 'run ip reallocation (deprecated)'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ipreallocate" -d 'run ip reallocation'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "gratarp" -d 'send a gratuitous arp'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "tickle" -d 'send a tcp tickle ack'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "gettickles" -d 'get the list of tickles'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "addtickle" -d 'add a tickle'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "deltickle" -d 'delete a tickle'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "listnodes" -d 'list nodes in the cluster'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "reloadnodes" -d 'reload the nodes file all nodes'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "moveip" -d 'move an ip address to another node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "addip" -d 'add an ip address to a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "delip" -d 'delete an ip address from a node'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "backupdb" -d 'backup a database into a file'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "restoredb" -d 'restore a database from a file'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "dumpdbbackup" -d 'dump database from a backup file'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "wipedb" -d 'wipe the contents of a database.'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "leader" -d 'show the pnn of the leader'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "event" -d 'event and event script commands'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "scriptstatus" -d 'show event script status'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "natgw" -d 'show natgw configuration'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getreclock" -d 'get recovery lock file'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setlmasterrole" -d 'set LMASTER role'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setleaderrole" -d 'set LEADER role'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setdbreadonly" -d 'enable readonly records'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "setdbsticky" -d 'enable sticky records'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "pfetch" -d 'fetch record from persistent database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "pstore" -d 'write record to persistent database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "pdelete" -d 'delete record from persistent database'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "ptrans" -d 'update a persistent database (from file or stdin)'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "tfetch" -d 'fetch a record'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "tstore" -d 'store a record'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "readkey" -d 'read value of a database key'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "writekey" -d 'write value for a database key'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "deletekey" -d 'delete a database key'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "checktcpport" -d 'check if a service is bound to a specific tcp port or not'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "getdbseqnum" -d 'get database sequence number'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "nodestatus" -d 'show and return node status'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "dbstatistics" -d 'show database statistics'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "reloadips" -d 'reload the public addresses file'
complete -c ctdb -n "__fish_ctdb_needs_command" -f -a "pushrecord" -d 'push a record to all nodes'
complete -c ctdb -n "__fish_ctdb_using_subcommand version" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand version" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand version" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand version" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand version" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand status" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand status" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand status" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand status" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand status" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand uptime" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand uptime" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand uptime" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand uptime" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand uptime" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ping" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ping" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ping" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ping" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ping" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand runstate" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand runstate" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand runstate" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand runstate" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand runstate" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getvar" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getvar" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getvar" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getvar" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getvar" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setvar" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setvar" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setvar" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setvar" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setvar" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand listvars" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand listvars" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand listvars" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand listvars" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand listvars" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand statistics" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand statistics" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand statistics" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand statistics" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand statistics" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand statisticsreset" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand statisticsreset" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand statisticsreset" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand statisticsreset" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand statisticsreset" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand stats" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand stats" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand stats" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand stats" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand stats" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ip" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ip" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ip" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ip" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ip" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipinfo" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ipinfo" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ipinfo" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipinfo" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipinfo" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ifaces" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ifaces" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ifaces" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ifaces" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ifaces" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setifacelink" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setifacelink" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setifacelink" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setifacelink" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setifacelink" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand process-exists" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand process-exists" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand process-exists" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand process-exists" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand process-exists" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbmap" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbmap" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbmap" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbmap" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbmap" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbstatus" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbstatus" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbstatus" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbstatus" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbstatus" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand catdb" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand catdb" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand catdb" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand catdb" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand catdb" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand cattdb" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand cattdb" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand cattdb" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand cattdb" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand cattdb" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getcapabilities" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getcapabilities" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getcapabilities" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getcapabilities" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getcapabilities" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pnn" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pnn" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pnn" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand pnn" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pnn" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand lvs" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand lvs" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand lvs" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand lvs" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand lvs" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdebug" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdebug" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdebug" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdebug" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdebug" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdebug" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdebug" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdebug" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdebug" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdebug" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand attach" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand attach" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand attach" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand attach" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand attach" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand detach" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand detach" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand detach" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand detach" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand detach" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpmemory" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpmemory" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpmemory" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpmemory" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpmemory" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand rddumpmemory" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand rddumpmemory" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand rddumpmemory" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand rddumpmemory" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand rddumpmemory" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getpid" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getpid" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getpid" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getpid" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getpid" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand disable" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand disable" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand disable" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand disable" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand disable" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand enable" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand enable" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand enable" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand enable" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand enable" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand stop" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand stop" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand stop" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand stop" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand stop" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand continue" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand continue" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand continue" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand continue" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand continue" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ban" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ban" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ban" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ban" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ban" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand unban" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand unban" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand unban" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand unban" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand unban" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand shutdown" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand shutdown" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand shutdown" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand shutdown" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand shutdown" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand recover" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand recover" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand recover" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand recover" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand recover" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand sync" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand sync" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand sync" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand sync" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand sync" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipreallocate" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ipreallocate" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ipreallocate" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipreallocate" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ipreallocate" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand gratarp" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand gratarp" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand gratarp" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand gratarp" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand gratarp" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tickle" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tickle" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tickle" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand tickle" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tickle" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand gettickles" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand gettickles" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand gettickles" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand gettickles" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand gettickles" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand addtickle" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand addtickle" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand addtickle" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand addtickle" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand addtickle" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand deltickle" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand deltickle" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand deltickle" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand deltickle" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand deltickle" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand listnodes" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand listnodes" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand listnodes" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand listnodes" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand listnodes" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadnodes" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadnodes" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadnodes" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadnodes" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadnodes" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand moveip" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand moveip" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand moveip" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand moveip" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand moveip" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand addip" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand addip" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand addip" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand addip" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand addip" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand delip" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand delip" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand delip" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand delip" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand delip" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand backupdb" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand backupdb" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand backupdb" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand backupdb" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand backupdb" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand restoredb" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand restoredb" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand restoredb" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand restoredb" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand restoredb" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpdbbackup" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpdbbackup" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpdbbackup" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpdbbackup" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dumpdbbackup" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand wipedb" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand wipedb" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand wipedb" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand wipedb" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand wipedb" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand leader" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand leader" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand leader" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand leader" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand leader" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand event" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand event" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand event" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand event" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand event" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand scriptstatus" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand scriptstatus" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand scriptstatus" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand scriptstatus" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand scriptstatus" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand natgw" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand natgw" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand natgw" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand natgw" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand natgw" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getreclock" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getreclock" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getreclock" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getreclock" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getreclock" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setlmasterrole" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setlmasterrole" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setlmasterrole" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setlmasterrole" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setlmasterrole" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setleaderrole" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setleaderrole" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setleaderrole" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setleaderrole" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setleaderrole" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbreadonly" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbreadonly" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbreadonly" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbreadonly" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbreadonly" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbsticky" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbsticky" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbsticky" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbsticky" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand setdbsticky" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pfetch" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pfetch" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pfetch" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand pfetch" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pfetch" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pstore" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pstore" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pstore" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand pstore" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pstore" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pdelete" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pdelete" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pdelete" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand pdelete" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pdelete" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ptrans" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ptrans" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand ptrans" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand ptrans" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand ptrans" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tfetch" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tfetch" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tfetch" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand tfetch" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tfetch" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tstore" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tstore" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand tstore" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand tstore" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand tstore" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand readkey" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand readkey" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand readkey" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand readkey" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand readkey" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand writekey" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand writekey" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand writekey" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand writekey" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand writekey" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand deletekey" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand deletekey" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand deletekey" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand deletekey" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand deletekey" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand checktcpport" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand checktcpport" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand checktcpport" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand checktcpport" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand checktcpport" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbseqnum" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbseqnum" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbseqnum" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbseqnum" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand getdbseqnum" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand nodestatus" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand nodestatus" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand nodestatus" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand nodestatus" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand nodestatus" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dbstatistics" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dbstatistics" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand dbstatistics" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand dbstatistics" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand dbstatistics" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadips" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadips" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadips" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadips" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand reloadips" -s j -l json -d 'enable JSON output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pushrecord" -s n -l node -d 'node specification - integer' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pushrecord" -l watch -d 'repeat a reporting command' -r
complete -c ctdb -n "__fish_ctdb_using_subcommand pushrecord" -s X -d 'enable machine parsable output with separator |'
complete -c ctdb -n "__fish_ctdb_using_subcommand pushrecord" -s v -l verbose -d 'enable verbose output'
complete -c ctdb -n "__fish_ctdb_using_subcommand pushrecord" -s j -l json -d 'enable JSON output'
