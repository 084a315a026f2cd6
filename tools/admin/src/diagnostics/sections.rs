//! What is shown of every node, in order.

/// A heading and its commands.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) items: &'static [Item],
}

/// A shell command run on every node.
pub(super) struct Item {
    pub(super) command: &'static str,
    /// Left out with `--no-ads`.
    pub(super) active_directory: bool,
}

const fn item(command: &'static str) -> Item {
    Item { command, active_directory: false }
}

const fn ads(command: &'static str) -> Item {
    Item { command, active_directory: true }
}

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Showing software versions",
        items: &[
            item("uname -a"),
            item("cat /etc/os-release"),
            item("if command -v rpm; then rpm -qa | grep -E 'samba|ctdb|ringmaster|gpfs'; fi"),
            item("if command -v dpkg-query; then dpkg-query --show 'ctdb*' 'ringmaster*'; fi"),
            item("if command -v dpkg-query; then dpkg-query --show 'samba*'; fi"),
        ],
    },
    Section {
        title: "Showing cluster status and recent log entries",
        items: &[
            item("ctdb status; ctdb ip"),
            item("ctdb statistics"),
            item("ctdb uptime"),
            item("ctdb listvars"),
            item("ctdb getdbmap"),
            item(
                "ctdb -X getdbmap | awk -F'|' 'NR > 1 {print $3}' | sort | \
                 xargs -n 1 ctdb dbstatistics",
            ),
            item("ctdb event status legacy monitor"),
            item("test -f /var/log/ctdb/log.ctdb && tail -n 100 /var/log/ctdb/log.ctdb"),
            item("journalctl -n 200 --no-pager -u ctdb"),
            item("tail -n 200 /var/log/messages"),
            item("ls -lRs /var/lib/ctdb"),
            item("ls -lRs /etc/ctdb"),
        ],
    },
    Section {
        title: "Showing system and process status",
        items: &[
            item("df"),
            item("df -i"),
            item("mount"),
            item("w"),
            item("ps axfwu"),
            item("dmesg"),
            item("lspci"),
            item("dmidecode"),
            item("cat /proc/partitions"),
            item("cat /proc/cpuinfo"),
            item("cat /proc/pressure/cpu /proc/pressure/io /proc/pressure/memory"),
            item("cat /proc/scsi/scsi"),
            item("cat /proc/net/dev"),
            item("ip addr list"),
            item("ip route list table all"),
            item("ip rule list"),
            item("ss -s"),
            item("free"),
            item("crontab -l"),
            item("sysctl -a"),
            item("iptables -L -n"),
            item("iptables -L -n -t nat"),
            item("nft list ruleset"),
            item("rpcinfo -p"),
            item("showmount -a"),
            item("showmount -e"),
            item("nfsstat -v"),
            item("if command -v multipath; then multipath -ll; fi"),
            item("if command -v rdma; then rdma link show; fi"),
            item("systemctl --no-pager --failed"),
            item("if command -v getenforce; then getenforce; fi"),
            item("if [ -d /proc/net/bonding ]; then cat /proc/net/bonding/*; fi"),
        ],
    },
    Section {
        title: "Showing Samba status",
        items: &[
            item("smbstatus -n -B"),
            ads("net ads testjoin"),
            item("net conf list"),
            item("lsof -n | grep smbd"),
            item("lsof -n | grep ctdbd"),
            item("ss -tan"),
            ads("net ads info"),
            item("date"),
            item("smbclient -U% -L 127.0.0.1"),
            item("id \"$(testparm -s --parameter-name=WORKGROUP 2>/dev/null)/Administrator\""),
            item("wbinfo -p"),
            item("wbinfo --online-status"),
            item("smbd -b"),
        ],
    },
];
