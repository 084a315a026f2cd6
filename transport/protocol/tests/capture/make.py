#!/usr/bin/python3
"""Captures the traffic of a three-node cluster of C daemons into one small file.

Usage: make.py [OUTPUT]          (as root, on a machine with Debian's ctdb and strace)

Each ctdbd runs under strace, without its children: what it reads and writes on its sockets is all
traffic of a node, from clients, to clients, to other nodes, and with its event daemon. README.md
describes the output.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import tdb

NODES = 3
ADDRESS = "127.11.77.%d"
CTDBD = "/usr/sbin/ctdbd"
HELPERS = "/usr/libexec/ctdb"
# Of each kind of packet this many are kept; idle daemons repeat themselves every second.
KEEP = 12
KEEP_CALLS = 200

MAGIC = 0x43544442
CURRENT_NODE = 0xF0000001
NOREPLY = 1
REQ_CALL, REPLY_CALL, REQ_MESSAGE, REQ_CONTROL, REPLY_CONTROL, REQ_TUNNEL = 0, 1, 5, 7, 8, 10
(FROM_CLIENT, TO_CLIENT, TO_NODE, TO_EVENTD, FROM_EVENTD) = range(5)


class Cluster:
    def __init__(self, directory, lock):
        self.directory = directory
        self.lock = f"cluster lock = {directory}/lock" if lock else ""
        self.daemons = {}
        self.stdins = {}
        for node in range(NODES):
            self.configure(node)

    def base(self, node):
        return f"{self.directory}/node.{node}"

    def configure(self, node):
        base = self.base(node)
        for name in ("run", "var", "db/volatile", "db/persistent", "db/state", "events/legacy"):
            os.makedirs(f"{base}/{name}")
        self.write(node, "nodes", "".join(ADDRESS % (n + 1) + "\n" for n in range(NODES)))
        public = "".join(f"192.168.{net}.{n + 1}/24 lo\n" for n in range(NODES) for net in (100, 200))
        self.write(node, "public_addresses", public + "fd00:99::1/64 lo\n")
        self.write(node, "notify.sh", "#!/bin/sh\n", 0o755)
        self.write(node, "events/legacy/00.test.script", "#!/bin/sh\nexit 0\n", 0o755)
        self.write(node, "ctdb.conf", f"""[logging]
    location = file:{base}/log
    log level = NOTICE
[cluster]
    {self.lock}
    node address = {ADDRESS % (node + 1)}
[database]
    volatile database directory = {base}/db/volatile
    persistent database directory = {base}/db/persistent
    state database directory = {base}/db/state
""")

    def write(self, node, name, text, mode=0o644):
        path = f"{self.base(node)}/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)

    def environment(self, node):
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "CTDB_TEST_MODE": "yes",
            "CTDB_BASE": self.base(node),
            "CTDB_SOCKET": f"{self.base(node)}/run/ctdbd.socket",
            "CTDB_TEST_HELPER_BINDIR": HELPERS,
        }

    def start(self, node):
        reader, writer = os.pipe()
        calls = "trace=read,write,writev,connect"
        trace = f"{self.directory}/trace.{node}.{int(time.time() * 1e6)}"
        command = ["strace", "-o", trace, "-e", calls, "-e", "signal=none", "-yy", "-xx", "-ttt",
                   "-s", "20000000", CTDBD, "-i"]
        self.daemons[node] = subprocess.Popen(
            command, env=self.environment(node), stdin=reader, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.base(node))
        os.close(reader)
        self.stdins[node] = writer

    def pid(self, node):
        with open(f"{self.base(node)}/run/ctdbd.pid") as file:
            return int(file.read())

    def crash(self, node):
        os.kill(self.pid(node), signal.SIGKILL)
        self.daemons.pop(node).wait()
        os.close(self.stdins.pop(node))
        # The children end by themselves; the socket's path is in their way at the next start.
        wait(f"end of node {node}", lambda: not self.processes(node))

    def processes(self, node):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if f"CTDB_BASE={self.base(node)}\0".encode() in file.read():
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def tool(self, node, *arguments, check=False):
        done = subprocess.run(["ctdb", *arguments], env=self.environment(node), text=True,
                              capture_output=True, timeout=60)
        if check and done.returncode != 0:
            sys.exit(f"ctdb {' '.join(arguments)}: {done.stderr}{done.stdout}")
        if done.returncode != 0:
            print(f"node {node}: ctdb {' '.join(arguments)}: {done.returncode} {done.stderr.strip()}")
        return done.stdout

    def wait_ok(self, nodes):
        def healthy():
            for node in nodes:
                done = subprocess.run(["ctdb", "-Y", "status"], env=self.environment(node), text=True,
                                      capture_output=True, timeout=60)
                lines = done.stdout.splitlines()[1:]
                up = [line for line in lines if line.split("|")[3:11] == ["0"] * 8]
                if done.returncode not in (0, 2, 4) or len(up) != len(nodes):
                    return False
                state = subprocess.run(["ctdb", "runstate", "RUNNING"], env=self.environment(node),
                                       capture_output=True, timeout=60)
                if state.returncode != 0:
                    return False
            return True
        wait(f"healthy nodes {nodes}", healthy)

    def stop(self):
        for node in list(self.daemons):
            self.tool(node, "shutdown")
            wait(f"end of node {node}", lambda: not self.processes(node))
            self.daemons.pop(node).wait()
            os.close(self.stdins.pop(node))

    def kill(self):
        for node in range(NODES):
            for pid in self.processes(node):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def wait(what, condition, limit=90):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited {limit} s for {what}")
        time.sleep(0.2)


class Client:
    """A client that frames its packets as smbd does: exact lengths, generation 0."""

    def __init__(self, cluster, node):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f"{cluster.base(node)}/run/ctdbd.socket")
        self.socket.settimeout(20)
        self.reqid = 100
        self.received = b""

    def send(self, operation, body, destination=CURRENT_NODE):
        self.reqid += 1
        head = struct.pack("<8I", 32 + len(body), MAGIC, 1, 0, operation, destination, 0, self.reqid)
        self.socket.sendall(head + body)

    def packet(self):
        while True:
            if len(self.received) >= 4:
                length = struct.unpack_from("<I", self.received)[0]
                if len(self.received) >= length:
                    packet, self.received = self.received[:length], self.received[length:]
                    return packet
            chunk = self.socket.recv(65536)
            if not chunk:
                raise EOFError("daemon closed the connection")
            self.received += chunk

    def reply(self):
        """The reply to the last request; messages on the way are passed over."""
        while True:
            packet = self.packet()
            operation, reqid = struct.unpack_from("<I", packet, 16)[0], struct.unpack_from("<I", packet, 28)[0]
            if operation in (REPLY_CALL, REPLY_CONTROL) and reqid == self.reqid:
                return packet

    def control(self, opcode, data=b"", srvid=0, flags=0, destination=CURRENT_NODE):
        self.send(REQ_CONTROL, struct.pack("<IIQIII", opcode, 0, srvid, 0, flags, len(data)) + data,
                  destination)
        if flags & NOREPLY:
            return None
        packet = self.reply()
        status, length = struct.unpack_from("<iI", packet, 32)
        return status, packet[44:44 + length]

    def call(self, database, callid, key, flags):
        self.send(REQ_CALL, struct.pack("<6I", flags, database, callid, 0, len(key), 0) + key)
        packet = self.reply()
        return packet[40:40 + struct.unpack_from("<I", packet, 36)[0]]

    def message(self, srvid, data, destination=CURRENT_NODE):
        self.send(REQ_MESSAGE, struct.pack("<QI", srvid, len(data)) + data, destination)

    def close(self):
        self.socket.close()


def address(text, port):
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(text) + bytes(20)


IMMEDIATE, READONLY = 1, 4
NULL, FETCH, FETCH_WITH_HEADER = 0xFF000001, 0xFF000002, 0xFF000003


def store(path, flags, key, value):
    """Stores a value under the header the daemon left, as a client does under the chain lock."""
    database = tdb.Tdb(path, 0, flags, os.O_RDWR)
    database.lock_all()
    header = bytearray((database.get(key) or bytes(24))[:24])
    database.store(key, bytes(header) + value)
    database.unlock_all()
    database.close()


def databases(cluster):
    print("attach")
    cluster.tool(0, "attach", "volatile.tdb", check=True)
    cluster.tool(0, "attach", "shared.tdb", "readonly", check=True)
    cluster.tool(1, "attach", "sticky.tdb", "sticky", check=True)
    cluster.tool(0, "attach", "persistent.tdb", "persistent", check=True)
    cluster.tool(2, "attach", "replicated.tdb", "replicated", check=True)
    wait("databases everywhere", lambda: all(
        cluster.tool(node, "getdbmap").count(".tdb") >= 5 for node in range(NODES)))
    for node in range(NODES):
        cluster.tool(node, "getdbmap")
        cluster.tool(node, "getdbstatus", "persistent.tdb")


def records(cluster):
    print("migration")
    cluster.tool(0, "writekey", "volatile.tdb", "k0", "DATA-A", check=True)
    for round in range(4):
        for node in range(NODES):
            for key in range(5):
                cluster.tool(node, "writekey", "volatile.tdb", f"k{key}", f"value of node {node}")
    cluster.tool(1, "readkey", "volatile.tdb", "k1")
    print("persistent")
    for key in range(3):
        cluster.tool(key, "pstore", "persistent.tdb", f"p{key}", "kept" * 10, check=True)
    cluster.tool(2, "pfetch", "persistent.tdb", "p0")
    cluster.tool(1, "pdelete", "persistent.tdb", "p1")
    cluster.write(0, "transaction", '"t1" "one"\n"t2" "two"\n')
    subprocess.run(["ctdb", "ptrans", "persistent.tdb", f"{cluster.base(0)}/transaction"],
                   env=cluster.environment(0), timeout=60)
    for node in range(NODES):
        cluster.tool(node, "getdbseqnum", "persistent.tdb")
    cluster.tool(0, "tfetch", f"{cluster.base(0)}/db/persistent/persistent.tdb.0", "p0")
    print("traverse")
    for node in range(NODES):
        cluster.tool(node, "catdb", "volatile.tdb")
        cluster.tool(node, "catdb", "persistent.tdb")
        cluster.tool(node, "cattdb", "persistent.tdb")


def delegation(cluster):
    print("read-only delegation and revoke")
    clients = [Client(cluster, node) for node in range(NODES)]
    status, data = clients[0].control(18, b"shared.tdb\0")
    database = struct.unpack("<I", data)[0]
    for client in clients:
        client.control(18, b"shared.tdb\0")
        client.control(129, struct.pack("<I", database))
    flags = struct.unpack("<i", clients[0].control(149, data)[1])[0]
    for key in (b"r0", b"r1", b"r2"):
        clients[0].call(database, NULL, key, IMMEDIATE)
        store(f"{cluster.base(0)}/db/volatile/shared.tdb.0", flags, key, b"XYZ")
        for _ in range(2):
            for client in clients[1:]:
                client.call(database, FETCH_WITH_HEADER, key, READONLY)
                client.call(database, FETCH, key, READONLY)
        clients[1].call(database, NULL, key, IMMEDIATE)
        clients[2].call(database, FETCH_WITH_HEADER, key, READONLY)
        clients[0].call(database, FETCH_WITH_HEADER, key, IMMEDIATE)
    for client in clients:
        client.close()


def clients(cluster):
    print("clients")
    client, other = Client(cluster, 0), Client(cluster, 1)
    mine = 0xCE01000000000077
    client.control(35)
    client.control(23, srvid=mine)
    client.message(mine, b"hello")
    client.packet()
    other.message(mine, b"from the other node", destination=0)
    client.packet()
    other.control(114, struct.pack("<QI", mine, 3) + b"bye")
    client.control(114, struct.pack("<QI", mine + 1, 3) + b"bye")
    client.control(115, struct.pack("<Q", mine + 1))
    client.control(0, struct.pack("<i", os.getpid()))
    client.control(151, struct.pack("<iQ", os.getpid(), mine))
    client.control(999)
    client.control(35, destination=7)
    client.control(24, srvid=mine + 5)
    client.control(25, struct.pack("<I", 0x12345678))
    client.control(49, struct.pack("<I", 8) + b"NoSuch!\0")
    client.control(0, struct.pack("<i", 1))
    client.control(30, destination=1)
    client.control(3, destination=1)
    client.control(156, struct.pack("<II", 0, 4) + b"echo", destination=1)
    ip = next((f"192.168.{net}.{n + 1}" for net in (100, 200) for n in range(NODES)
               if f"192.168.{net}.{n + 1} 0" in cluster.tool(0, "ip")), "192.168.100.1")
    connection = address("10.99.0.77", 50000) + address(ip, 445)
    client.control(44, connection)
    cluster.tool(0, "gettickles", ip)
    tunnel = 0xFFFFFFFF00000001
    client.control(152, srvid=tunnel)
    other.control(152, srvid=tunnel)
    other.send(REQ_TUNNEL, struct.pack("<QII", tunnel, 1, 3) + b"abc", destination=0)
    client.packet()
    client.control(153, srvid=tunnel)
    status, data = client.control(18, b"volatile.tdb\0")
    database = struct.unpack("<I", data)[0]
    client.control(149, data)
    client.control(26, data)
    client.control(4, data)
    client.control(131, struct.pack("<IIQB7x", database, 5, mine, 1))
    client.control(20, struct.pack("<IIQ", database, 6, mine))
    client.control(128, struct.pack("<II", database, 0) + bytes(24) + struct.pack("<I", 2) + b"k9",
                   srvid=database, flags=1)
    client.control(24, srvid=mine)
    other.close()
    client.control(35)
    client.close()


def administration(cluster):
    print("administration")
    ip = "192.168.100.2"
    for arguments in (
        "status", "uptime", "statistics", "statisticsreset", "stats", "ip", "ipinfo " + ip, "ifaces",
        "pnn", "ping", "process-exists 1", "getcapabilities", "getreclock", "getdebug", "setdebug NOTICE",
        "listvars", "getvar ControlTimeout", "setvar MonitorInterval 15", "listnodes", "runstate",
        "dumpmemory", "rddumpmemory", "getpid", "nodestatus", "leader", "dbstatistics volatile.tdb",
        "dbstatistics persistent.tdb", "setdbreadonly volatile.tdb", "setdbsticky volatile.tdb",
        "gratarp 192.168.100.1 lo", "sync", "ipreallocate", "addtickle 10.9.8.7:1000 192.168.100.1:445",
        "gettickles 192.168.100.1", "deltickle 10.9.8.7:1000 192.168.100.1:445", "reloadnodes",
        "setifacelink lo up", "setlmasterrole on", "setleaderrole on", "checktcpport 1", "reloadips",
        "event status legacy monitor", "event script disable legacy 00.test",
        "event script enable legacy 00.test", "event run 30 legacy ipreallocated",
    ):
        cluster.tool(0, *arguments.split())
    for target in map(str, range(1, NODES)):
        for arguments in ("uptime", "statistics", "ip", "getpid", "getvar RecoverTimeout", "runstate",
                          "getdebug", "dbstatistics volatile.tdb", "getcapabilities", "ifaces"):
            cluster.tool(0, "-n", target, *arguments.split())
    print("databases as a whole")
    backup = f"{cluster.base(0)}/backup"
    cluster.tool(0, "backupdb", "persistent.tdb", backup)
    cluster.tool(0, "restoredb", backup, "restored.tdb")
    cluster.tool(1, "wipedb", "volatile.tdb")
    cluster.tool(1, "attach", "gone.tdb")
    for node in range(NODES):
        cluster.tool(node, "setvar", "AllowClientDBAttach", "0")
    cluster.tool(2, "detach", "gone.tdb")
    for node in range(NODES):
        cluster.tool(node, "setvar", "AllowClientDBAttach", "1")
    print("vacuuming")
    clients = [Client(cluster, node) for node in range(NODES)]
    data = clients[0].control(18, b"volatile.tdb\0")[1]
    for key in range(12):
        cluster.tool(key % NODES, "writekey", "volatile.tdb", f"v{key}", "soon gone")
    for key in range(12):
        cluster.tool((key + 1) % NODES, "deletekey", "volatile.tdb", f"v{key}")
    for full in (0, 1):
        for client in clients:
            client.control(155, data + bytes([full]))
    for client in clients:
        client.close()


def takeover(cluster):
    print("takeover")
    watchers = [Client(cluster, node) for node in range(NODES)]
    for client in watchers:
        for srvid in (0xF300000000000000, 0xF301000000000000):
            client.control(23, srvid=srvid)
    cluster.tool(0, "moveip", "192.168.100.1", "1")
    for command in ("disable", "enable", "stop", "continue"):
        cluster.tool(0, command, "-n", "2")
        if command in ("disable", "stop"):
            time.sleep(3)
        else:
            cluster.wait_ok(range(NODES))
    # Long enough for the tool to see it: it waits for the flag for ever.
    cluster.tool(0, "ban", "60", "-n", "1")
    time.sleep(3)
    cluster.tool(0, "unban", "-n", "1")
    cluster.wait_ok(range(NODES))
    for client in watchers:
        client.close()


def recovery(cluster):
    print("recovery")
    for node in range(NODES):
        for key in range(4):
            cluster.tool(node, "writekey", "volatile.tdb", f"n{node}k{key}", "survives" * 8)
    cluster.tool(0, "recover")
    cluster.wait_ok(range(NODES))
    print("crash and restart")
    cluster.crash(2)
    wait("a recovery without node 2", lambda: "DISCONNECTED" in cluster.tool(0, "status"))
    time.sleep(6)
    cluster.start(2)
    cluster.wait_ok(range(NODES))


# --- from traces to packets

CALL = re.compile(
    r'^(\d+\.\d+) (read|write|writev)\(\d+<((?:UNIX-STREAM|TCP):\[.*?\])>, (.*)\) += (\d+)$')
CONNECT = re.compile(
    r'^\d+\.\d+ connect\(\d+<UNIX-STREAM:\[(\d+)[^]]*\]>, \{sa_family=AF_UNIX, sun_path="([^"]*)"')
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


class Streams:
    """Bytes of each direction of each connection, cut into packets."""

    def __init__(self):
        self.rest = {}
        self.numbers = {}
        self.packets = []

    def feed(self, seconds, node, channel, connection, data):
        key = (node, channel, connection)
        number = self.numbers.setdefault((node, connection), len(self.numbers))
        data = self.rest.pop(key, b"") + data
        while len(data) >= 4:
            length = struct.unpack_from("<I", data)[0]
            if length < 12:
                sys.exit(f"stream out of step: {key} {data[:32].hex()}")
            if len(data) < length:
                break
            self.packets.append((seconds, node, channel, number, data[:length]))
            data = data[length:]
        if data:
            self.rest[key] = data


def read_trace(path, node, streams):
    event_sockets = set()
    with open(path) as file:
        for line in file:
            if found := CONNECT.match(line):
                if unhex(found[2]).endswith(b"/eventd.socket"):
                    event_sockets.add(found[1])
                continue
            found = CALL.match(line)
            if not found or found[5] == "0":
                continue
            seconds, call, where, arguments, count = found.groups()
            data = b"".join(unhex(text) for text in STRING.findall(arguments))[:int(count)]
            reading = call == "read"
            bound = b"".join(unhex(text) for text in STRING.findall(where))
            if where.startswith("TCP"):
                channel = None if reading else TO_NODE
            elif bound.endswith(b"/ctdbd.socket"):
                channel = FROM_CLIENT if reading else TO_CLIENT
            elif re.match(r"UNIX-STREAM:\[(\d+)", where)[1] in event_sockets:
                channel = FROM_EVENTD if reading else TO_EVENTD
            else:
                channel = None
            if channel is not None:
                streams.feed(float(seconds), node, channel, where, data)


def kind(channel, packet):
    if channel >= TO_EVENTD:
        return (channel, struct.unpack_from("<I", packet, 12)[0])
    operation = struct.unpack_from("<I", packet, 16)[0]
    if operation == REQ_CONTROL:
        # Exact lengths are a kind of their own: those clients ask for things the tool never does.
        return (channel, operation, struct.unpack_from("<I", packet, 32)[0], len(packet) % 8 == 0)
    if operation == REQ_MESSAGE:
        srvid = struct.unpack_from("<Q", packet, 32)[0]
        return (channel, operation, srvid >> 48)
    return (channel, operation)


def thin(packets):
    """Of each kind the first few; a reply stays if its request does."""
    seen, answered, kept = {}, set(), []
    for entry in packets:
        _, node, channel, number, packet = entry
        operation, destination, source, reqid = struct.unpack_from("<IIII", packet, 16) \
            if channel < TO_EVENTD else (None,) * 4
        if operation == REPLY_CONTROL:
            leg = (node, number, reqid) if channel == TO_CLIENT else ("tcp", destination, source, reqid)
            if leg in answered:
                answered.discard(leg)
                kept.append(entry)
            continue
        leg = None
        if operation == REQ_CONTROL and not packet[52] & NOREPLY:
            leg = (node, number, reqid) if channel == FROM_CLIENT \
                else ("tcp", source, destination, reqid)
            # An id is used again after a restart; an answer to the old request is not wanted.
            answered.discard(leg)
        name = kind(channel, packet)
        seen[name] = seen.get(name, 0) + 1
        is_call = operation is not None and operation < 5
        if seen[name] > (KEEP_CALLS if is_call else KEEP):
            continue
        if leg:
            answered.add(leg)
        kept.append(entry)
    return kept


def save(path, packets):
    first = packets[0][0]
    with open(path, "wb") as file:
        file.write(b"ctdbcap1")
        for seconds, node, channel, number, packet in packets:
            micros = round((seconds - first) * 1e6)
            file.write(struct.pack("<QBBHI", micros, node, channel, number, len(packet)))
            file.write(packet)
    print(f"{path}: {len(packets)} packets, {os.path.getsize(path)} bytes")


def main():
    sys.stdout.reconfigure(line_buffering=True)
    # Orphans of a killed daemon are ours to wait for.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    output = sys.argv[1] if len(sys.argv) > 1 else "capture.bin"
    directory = tempfile.mkdtemp(prefix="ctdbcap.")
    os.mkdir(f"{directory}/elected")
    cluster = Cluster(directory, lock=True)
    elected = Cluster(f"{directory}/elected", lock=False)
    try:
        for node in range(NODES):
            cluster.start(node)
        cluster.wait_ok(range(NODES))
        for part in (databases, records, delegation, clients, administration, takeover, recovery,
                     records):
            part(cluster)
        cluster.stop()
        print("election without a cluster lock")
        for node in range(NODES):
            elected.start(node)
        elected.wait_ok(range(NODES))
        elected.stop()
        streams = Streams()
        for place in (cluster, elected):
            for name in sorted(os.listdir(place.directory)):
                if name.startswith("trace."):
                    read_trace(f"{place.directory}/{name}", int(name.split(".")[1]), streams)
        packets = sorted(streams.packets, key=lambda entry: entry[0])
        print(f"captured {len(packets)} packets")
        save(output, thin(packets))
    finally:
        cluster.kill()
        elected.kill()
        if os.environ.get("KEEP"):
            print(f"kept {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
