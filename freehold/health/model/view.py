"""What was read of a node at one moment: plain values, so that a recording is a list of them and a replay is the same code.

A part that was not asked for is None; a value that could not be read is a Reading with the state that says why. Nothing
here judges: that is for probes.
"""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How reading one value went."""

    OK = "ok"
    UNSUPPORTED = "unsupported"  # this card, driver or kernel has no such reading
    TRANSIENT = "transient"  # may work the next time
    LOST = "lost"  # the device is gone
    RESET_REQUIRED = "reset_required"
    MISMATCH = "mismatch"  # user library and kernel module disagree
    ABSENT = "absent"  # no such device, library or file
    DENIED = "denied"  # not allowed to read it
    HUNG = "hung"  # no answer within the deadline
    UNKNOWN = "unknown"  # another error; `detail` has it


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value and how reading it went. `value` is None in every state but OK."""

    state: State = State.OK
    value: float | int | str | None = None
    detail: str = ""


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU's readings, by the names of `freehold/health/gpu_readings/table.py` (unit last)."""

    index: int
    uuid: str = ""
    """Empty: it could not be read."""
    serial: str = ""
    pci: str = ""
    """`00000000:00:06.0`."""
    name: str = ""
    readings: dict[str, Reading] = {}


class Gpus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All the GPUs, and the driver."""

    source: str = "nvml"
    """`nvml`, `dcgm` or `recording`."""
    state: State = State.OK
    """Of the library as a whole: ABSENT without a driver, MISMATCH, HUNG."""
    detail: str = ""
    driver: dict[str, Reading] = {}
    """`driver_version`, `cuda_version`, `nvml_version`, `module_version` (running), `disk_version` (on disk)."""
    gpus: tuple[Gpu, ...] = ()
    most: int = 0
    """Most GPUs that answered at once since the reader began: one that is gone stays gone, however long ago."""
    pci_addresses: tuple[str, ...] = ()
    """NVIDIA display and 3D controllers on the PCI bus, whether or not the driver sees them."""


class KernelLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the kernel log, continuation lines folded in."""

    at_s: float
    """Unix seconds."""
    text: str
    facility: int = 0
    level: int = 6
    sequence: int = 0


class Kernel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came in the kernel log since the view before."""

    state: State = State.OK
    detail: str = ""
    lines: tuple[KernelLine, ...] = ()
    lost: int = 0
    """Records that the kernel overwrote before they were read."""


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One watched volume since the view before."""

    path: str
    device: str = ""
    disks: tuple[str, ...] = ()
    """Block devices under `device`, by name: the disks of an LVM, RAID or encrypted volume."""
    file_system: str = ""
    state: State = State.OK
    """Of reading it: UNSUPPORTED without O_DIRECT or disk, HUNG, DENIED, ABSENT, TRANSIENT while it starts."""
    detail: str = ""
    user_space: bool = False
    """A process or another machine answers its reads (FUSE, NFS), no block device of this node."""
    network: bool = False
    """Another machine answers them: NFS, CIFS, sshfs and so on."""
    source: str = ""
    """What is mounted there: `10.0.0.1:/export`, `/dev/nvme0n1p2`."""
    rotational: bool | None = None
    """As the kernel says, which of a virtual disk is often True; None: not known."""
    reads_s: tuple[float, ...] = ()
    """How long each O_DIRECT probe read took; one that had not ended counts with the time that it had waited."""
    timeouts: int = 0
    """Of those: not ended within the deadline."""
    errors: tuple[str, ...] = ()
    """errno names of reads that failed."""
    device_ticks_s: Reading = Reading(state=State.UNKNOWN)
    """Seconds of reading that the device itself counted, per read, since the view before."""
    pressure_full_s: Reading = Reading(state=State.UNKNOWN)
    """PSI io full, seconds stalled since the view before."""
    pressure_some_s: Reading = Reading(state=State.UNKNOWN)
    """PSI io some: of all tasks of the node at least one waited; a busy node has no `full`."""
    device_queue: Reading = Reading(state=State.UNKNOWN)
    """Requests under way at the device, mean since the view before."""
    device_in_flight: Reading = Reading(state=State.UNKNOWN)
    """Requests under way at the device at this moment."""
    usual_read_s: Reading = Reading(state=State.UNKNOWN)
    """What a read here usually takes: the lowest median of a minute of reads within a day, at least 30 reads."""
    limits: tuple[str, ...] = ()
    """blkio limits of the reader's own cgroup and those above: `read_iops 5 (blkio:/serving, 7:0)`."""
    throttled_s: Reading = Reading(state=State.UNKNOWN)
    """Waited for a cgroup's limit since the view before, where the kernel counts it."""
    writing: bool = False
    """The agent writes here now and then to see whether it works; False: it does not, or an older recording."""
    writes_s: tuple[float, ...] = ()
    """How long each probe write took: a new file of 4 KiB until fsync has returned."""
    write_error: str = ""
    """errno name of the newest write if it failed."""
    write_waits_s: float = 0.0
    """How long the write under way has waited; 0: none is under way."""
    wrote: bool = False
    """Some write has succeeded since the reader began."""
    read_only: str = ""
    """Where a write was refused for that: `mount` (mounted so), `file_system` (it made itself so); empty: neither, or not looked."""
    total_bytes: Reading = Reading(state=State.UNKNOWN)
    free_bytes: Reading = Reading(state=State.UNKNOWN)
    free_inodes: Reading = Reading(state=State.UNKNOWN)
    total_inodes: Reading = Reading(state=State.UNKNOWN)
    smart: dict[str, Reading] = {}


class LossWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Datagrams between this node and one peer whose fate became known within the last `seconds`, by direction.

    Outages (20 or more in a row) and what could not be known are in none of these numbers.
    """

    seconds: float
    settled_out: int = 0
    """Ours: came there, or lost."""
    lost_out: int = 0
    settled_back: int = 0
    """The peer's: came here, or lost."""
    lost_back: int = 0
    large_out: int = 0
    """Of `settled_out`: as large as the path's MTU."""
    large_lost_out: int = 0
    large_back: int = 0
    large_lost_back: int = 0


class Peer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The UDP mesh to one peer since the view before."""

    name: str
    sent: int = 0
    lost_out: int = 0
    """Sent and never received there; runs of 20 and more are in `outage` instead."""
    lost_back: int = 0
    """Sent by the peer and never received here, likewise."""
    lost_unknown: int = 0
    """Fate not known: the peer restarted, or was silent for longer than what it remembers. Not evidence of loss."""
    outage: int = 0
    """Lost in runs of 20 or more, both directions: an outage, not loss."""
    longest_gap: int = 0
    """Most in a row that were lost, in either direction."""
    refused: int = 0
    """ECONNREFUSED: the host is up, the agent is not."""
    unreachable: int = 0
    """EHOSTUNREACH, ENETUNREACH or a failed neighbour."""
    foreign: int = 0
    """Came from its address and were none of this mesh's: another key, other names, or another version there."""
    rtt_s: tuple[float, ...] = ()
    """At most 200 of them, without the time that a datagram waited in either process."""
    silent_s: float = 0.0
    """Since the last datagram from it, or since the mesh began."""
    unconfirmed: int = 0
    """Ours that it had not confirmed when it last spoke; a few are always on their way."""
    large_run_out: int = 0
    """Of ours that were as large as the MTU: the last so many in a row did not get there."""
    large_run_back: int = 0
    """Of the peer's, likewise."""
    restarts: int = 0
    """New starts of the peer's agent that were seen."""
    control: State = State.UNKNOWN
    """Whether the host answered otherwise (TCP, neighbour table): OK, LOST (unreachable), HUNG (no answer), UNKNOWN.

    Asked only while the peer is silent."""
    interface: str = ""
    """Ours, on the way to it."""
    link: State = State.UNKNOWN
    """Of that interface: OK, LOST (down or without carrier), UNKNOWN. Asked only while the peer is silent."""
    windows: tuple[LossWindow, ...] = ()
    """The last 60, 120, 300 and 600 seconds, ending now."""
    reported: dict[str, int] = {}
    """What that peer says it lost to each of its own peers in 60 s, outages included, for majority."""


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One network interface."""

    name: str
    operstate: str = ""
    carrier: Reading = Reading(state=State.UNKNOWN)
    carrier_changes: Reading = Reading(state=State.UNKNOWN)
    carrier_ups: Reading = Reading(state=State.UNKNOWN)
    """How often it got a carrier since boot: 0 is a port that never had a cable."""
    wanted_up: bool = True
    """Switched on by the administrator (IFF_UP)."""
    speed_mbit_s: Reading = Reading(state=State.UNKNOWN)
    fastest_mbit_s: int = 0
    """The most that it ever ran at since the reader began; 0: not known."""
    counters: dict[str, int] = {}
    """Of /sys/class/net/X/statistics."""


class RdmaPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One RDMA port."""

    device: str
    port: int
    state: str = ""
    physical_state: str = ""
    was_up: bool = False
    """It was up at some time since the reader began."""
    counters: dict[str, int] = {}
    denied: tuple[str, ...] = ()
    """Counters that could not be read; not asked again for a while."""


class Network(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The network as this node sees it."""

    peers: tuple[Peer, ...] = ()
    mesh_error: str = ""
    """Why the mesh does not run although there are peers; empty: it runs, or none is configured."""
    interfaces: tuple[Interface, ...] = ()
    rdma: tuple[RdmaPort, ...] = ()
    tcp_retransmitted: Reading = Reading(state=State.UNKNOWN)
    tcp_sent: Reading = Reading(state=State.UNKNOWN)


class EngineView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica's engine."""

    replica: str
    engine: str
    pid: int = 0
    state: State = State.OK
    """Of asking its metrics: HUNG past the deadline, ABSENT refused, UNKNOWN."""
    tokens_total: Reading = Reading(state=State.UNKNOWN)
    """Whatever moves while it works: generated or prompt tokens, iterations, decode calls."""
    running: Reading = Reading(state=State.UNKNOWN)
    """Requests that it works on."""
    gateway_running: int | None = None
    """Requests that the gateway has under way there; None: no gateway to ask."""
    gateway_progress: int | None = None
    """Bytes or events that the gateway got from it, ever."""
    canary: Reading = Reading(state=State.UNKNOWN)
    """Seconds that the last tiny completion took, asked only when idle."""
    canary_waits_s: float = 0.0
    """How long the tiny completion under way has waited; 0: none is under way."""
    serves: str = "ready"
    """The replica's state by the fleet, as `core.events.ReplicaState`; only `ready` takes requests."""
    stall_s: float = 0.0
    """How long this engine may make no progress, for up to 2048 tokens to work through; 0: not known."""
    process_state: str = ""
    """Of the whole process group: X gone, Z dead and not reaped, T stopped, t held by a debugger, R some thread runs or wants
    to, D some thread waits for a device, S all sleep; empty: not read."""
    cpu_s: Reading = Reading(state=State.UNKNOWN)
    """CPU seconds of the process group, ever."""
    processes: tuple[int, ...] = ()
    """Pids of the group, as old as the last look for its members."""
    exit_text: str = ""
    """How it ended, by `engines.*.explain_exit`; empty: it runs."""


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Memory, clock, hung processes, kernel counters."""

    memory: dict[str, Reading] = {}
    """`total_bytes`, `available_bytes`, `swap_used_bytes`; `limit_bytes`, `limit_available_bytes` of the agent's cgroup; since boot: `pressure_some_s`, `pressure_full_s`, `oom_kills`."""
    clock: dict[str, Reading] = {}
    """`wall_minus_monotonic_s` (time that the machine slept left out), `synchronised` (0, 1), `estimated_error_s`, `maximum_error_s`."""
    blocked: dict[str, str] = {}
    """Processes in state D: `pid name` → wchan."""
    edac: dict[str, int] = {}
    """Since boot, of all memory controllers: `ce_count`, `ue_count`; empty: the kernel has no such counters here."""


class View(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that was read of a node at one moment."""

    at_s: float
    """Unix seconds."""
    monotonic_s: float
    node: str = ""
    gpus: Gpus | None = None
    kernel: Kernel | None = None
    volumes: tuple[Volume, ...] | None = None
    network: Network | None = None
    engines: tuple[EngineView, ...] | None = None
    host: Host | None = None
