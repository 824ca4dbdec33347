"""The replicas that the fleet runs, and the numbers it decides by: values built from the user's spec.

It deliberately reads no file and checks no option: `spec` and `engines.shared.option_check` have done that before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from freehold.core.events import GpuId
from freehold.engines.base import Adapter, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlan:
    """One replica that is wanted: either a process to run (`engine.managed`) or an address to watch."""

    id: str
    """`<model>-<index>`; external: `<model>-ext-<index>`. Unique in a fleet."""
    model: str
    """The name clients use."""
    engine: Engine
    upstream_model: str = ""
    """The name that the engine knows the model by; empty: the same as `model`."""
    weights: Path | None = None
    """Verified local weights, absolute; None for engines that bring their own."""
    options: Mapping[str, int | str | bool | float] = field(default_factory=dict)
    """Checked `engine_options`."""
    threads: int = 1
    """Compute threads that are this replica's fair share of the machine."""
    environment: Path | None = None
    """Folder of the environment that the engine's program is in; None: it is in Freehold's own, or elsewhere."""
    adapters: tuple[Adapter, ...] = ()
    """Adapters that a request can choose by their name in place of the model's."""
    environment_mark: str = ""
    """Which installation of it that is (`environments.Environment.mark`): another one is another program."""
    resume: str = "auto"
    """The policy of freehold.yaml for continuing a stream whose engine died."""
    url: str = ""
    """Where an external endpoint is, `http(s)://host[:port][/prefix]`; empty for managed engines."""
    round: int = 0
    """How often an operator had this model's replicas replaced by new ones like them."""
    api_key: str = field(default="", repr=False)
    """Bearer key that the endpoint requires; empty: none. Never logged or shown."""
    stall_s: float = 0.0
    """How long the engine may be silent, seconds; 0: the bound of its engine file."""
    media_urls: bool = False
    """Requests may hold addresses of pictures that the engine fetches."""
    allow_keys: tuple[str, ...] = ()
    """Keys of requests that are the engine's own, and pass all the same."""
    reuse_on_ask: bool = False
    """It uses what it kept of a prompt only for requests that ask for that."""
    affinity: bool = True
    """Conversations return to the replica that has their beginning in its cache."""
    gpus: tuple[GpuId, ...] | None = None
    """The GPUs that it sees (`fleet.gpus` assigns them); empty: none. None: the node's GPUs are not known, and it sees all."""
    gpus_shared: bool = False
    """Other replicas that share GPUs may have the same ones."""

    @property
    def name_upstream(self) -> str:
        """Return the model name that requests to this replica carry."""
        return self.upstream_model or self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """The numbers the fleet decides by. All have a default except the log folder.

    Sources: back-off and crash-loop numbers lie between systemd's (100 ms, 5 starts in 10 s) and Kubernetes'
    (10 s doubling to 300 s): an engine takes seconds to load, so 5 failures separate a loop from bad luck, and
    30 s is as long as a person fixing it should wait. The others are our own choice, explained beside them.
    """

    log_dir: Path
    """Folder of the engine logs, absolute; made when missing."""
    log_max_bytes: int = 16 * 1024 * 1024
    """Most disk that one replica's log may take, its rotated half included."""
    cwd: Path | None = None
    """Working directory of engines; None: the controller's."""
    ready_timeout_s: float = 900.0
    """A process that has not answered a completion this long after its start is ended and counted as failed. Longer than vLLM
    waits for its own parts (600 s), so that the engine itself reports what took too long."""
    stop_grace_s: float = 10.0
    """From SIGTERM to SIGKILL of the process group. Docker's and systemd's order of size (10 s, 90 s)."""
    drain_s: float = 30.0
    """Longest time for a cordoned replica to finish its streams before SIGTERM."""
    drain_settle_s: float = 0.3
    """After a cordon, before a count of 0 running requests counts: the gateway needs a moment to read the snapshot."""
    drain_poll_s: float = 0.25
    """Between two readings of a draining replica's running requests."""
    kill_margin_s: float = 2.0
    """A minder that has not reported the end this long after the grace is killed, and the group with it."""
    abandon_s: float = 20.0
    """A process group that survives SIGKILL this long hangs in the kernel: it is abandoned and reported."""
    backoff_base_s: float = 0.5
    backoff_max_s: float = 30.0
    stable_s: float = 60.0
    """After READY for this long, earlier failures no longer count."""
    unready_failures_max: int = 5
    """So many failures in a row without ever having been READY is a crash loop."""
    window_failures_max: int = 5
    """So many failures within `failure_window_s` is a crash loop too."""
    failure_window_s: float = 300.0
    crash_loop_retry_s: float = 300.0
    """From a crash loop to the next try. Kubernetes' longest pause (CrashLoopBackOff): what helps, such as a freed disk, takes minutes."""
    port_retries_max: int = 8
    """Starts on a fresh port, without back-off, when the engine found its port taken."""
    ready_poll_s: float = 0.2
    """Between two readiness completions of a starting replica; one runs at a time."""
    ready_ask_timeout_s: float = 60.0
    """Deadline of one readiness completion."""
    scrape_s: float = 2.0
    """Between two readings of a ready replica's counters."""
    scrape_timeout_s: float = 2.0
    rate_window_s: float = 10.0
    """Tokens per second are taken over readings of at most this long."""
    external_poll_s: float = 5.0
    """Between two `GET /v1/models` of an external endpoint."""
    external_timeout_s: float = 5.0
    external_misses_max: int = 3
    """So many missed answers in a row take a ready external endpoint out of traffic."""


def log_path(log_dir: Path, replica_id: str) -> Path:
    """Return a replica's log file; its older half is the same name with `.1` added.

    Ids may hold any character (model names have slashes): they are percent-encoded into one file name.
    """
    return log_dir / f"{quote(replica_id, safe='')}.log"


def files_dir(log_dir: Path, replica_id: str) -> Path:
    """Return the folder with the files that a replica's engine is started with, such as its configuration."""
    return log_dir / f"{quote(replica_id, safe='')}.files"
