"""What kernel lines tell of network links, of file servers behind them, and of the node going down on purpose.

Formats: the kernel's network drivers, drivers/net/bonding, fs/nfs and net/sunrpc, fs/ceph, Lustre's client, kernel/reboot.c. A link that goes down is
no trouble by itself: how often, and whether it came back, is for `incident_kernel`. Nothing here judges.
"""

import re

from freehold.health.kernel_log.kinds import Kind, Seen

_BDF = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_STATE = r"(?:NIC )?(?:\w+ )?[Ll]ink (?:is )?(?P<state>down|up|Down|Up|DOWN|UP)\b"
_LINKS = (
    re.compile(rf"\w+ {_BDF} (?P<name>[\w.-]+)(?: \([^)]*\))?: (?:\w+: )?(?:(?P=name) )?{_STATE}"),
    re.compile(rf"(?:mlx4_en|igb|e1000e?|ixgbe|i40e|bnx2x?|tg3): (?P<name>[\w.-]+):? {_STATE}"),
    re.compile(r"(?P<bond>\w+): \(slave (?P<name>[\w.-]+)\): link status definitely (?P<state>down|up)\b"),
    re.compile(
        r"(?:bonding: )?(?P<bond>\w+): link status definitely (?P<state>down|up) for interface (?P<name>[\w.-]+)"
    ),
)
_NO_SLAVE = re.compile(r"(?:bonding: )?(\w+): now running without any active interface")
_SERVER = re.compile(
    r"nfs: server (\S+) not responding, (?:still trying|timed out)|(?:Lustre|LustreError): .{0,120}Connection to (\S+) .{0,80}was lost"
    r"|ceph: (mds\d+) (?:hung|caps went stale)"
)
_BACK = re.compile(r"nfs: server (\S+) OK|(?:Lustre|LustreError): .{0,120}Connection restored to (\S+)")
_SHUTDOWN = re.compile(r"reboot: (?:Restarting|Power down|System halted)|systemd-shutdown\[\d+\]: ")


def link(text: str) -> Seen | None:
    """Read that a network interface lost or got its link; a bond without any member left has lost it."""
    for pattern in _LINKS:
        if match := pattern.match(text):
            down = match["state"].lower() == "down"
            fields = {"bond": match["bond"]} if "bond" in match.groupdict() else {}
            return Seen(Kind.LINK_DOWN if down else Kind.LINK_UP, match["name"], None, fields)
    match = _NO_SLAVE.match(text)
    return Seen(Kind.LINK_DOWN, match[1], None, {"bond": match[1]}) if match else None


def server(text: str) -> Seen | None:
    """Read that a file server does not answer, or answers again."""
    if match := _SERVER.match(text):
        return Seen(Kind.FILE_SERVER_SILENT, match[1] or match[2] or match[3])
    match = _BACK.match(text)
    return Seen(Kind.FILE_SERVER_BACK, match[1] or match[2]) if match else None


def shutdown(text: str) -> Seen | None:
    """Read that the node is going down because it was told to."""
    return Seen(Kind.SHUTDOWN) if _SHUTDOWN.match(text) else None
