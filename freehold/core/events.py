"""What fleet and agent tell the gateway and all tell a person: endpoints, snapshots, replica status, the agent's metrics.

Fleet, gateway and health do not import each other; these immutable records are all that passes between them, as
msgspec structs so that the same type is the value in memory and the JSON on a pipe or in a file.
"""

from enum import StrEnum

import msgspec

ADAPTERS_MAX = 64
"""Most adapters of one model. Source: our own bound: at rank 16 each is some 10 to 100 MB in every replica."""
MODELS_MAX = 256
"""Most models of one stack, and so most values of a metric's model label. Source: our own bound; more is a fleet."""

PRIVATE_KEYS = ("priority", "kv_transfer_params", "chat_template", "request_id", "rid", "id_slot", "bootstrap_host",
                "bootstrap_port", "bootstrap_room")  # fmt: skip
"""Keys of a request with which a caller steers the engine itself: its order of work, its slots, a program for its prompts,
whom it connects to. Source: vLLM's and SGLang's request models, llama.cpp's server README."""
CACHE_KEYS = frozenset({"cache_salt", "id_slot", "cache_prompt"})
"""Keys by which engines let a request choose the cache that it uses."""


class ReplicaState(StrEnum):
    """The life of a replica, in order; `backoff` and `crash_loop` are where failures lead."""

    PENDING = "pending"  # wanted, not started
    STARTING = "starting"  # process runs, no completion has succeeded yet
    READY = "ready"  # a real completion succeeded: it takes traffic
    ASLEEP = "asleep"  # somebody put its engine to sleep: no requests until it is woken
    DRAINING = "draining"  # no new requests; streams finish
    STOPPING = "stopping"  # SIGTERM sent, grace runs
    BACKOFF = "backoff"  # it exited; a restart is due at a known time
    CRASH_LOOP = "crash_loop"  # it failed too often: tried again every few minutes, or, if that must fail, when somebody acts
    STOPPED = "stopped"  # ended because that was wanted


class GpuId(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One GPU of a node, or one instance of a GPU that is divided (MIG)."""

    index: int
    """As nvidia-smi numbers them; instances have their GPU's."""
    uuid: str = ""
    """`GPU-…` or `MIG-…`; empty: the driver does not tell."""

    @property
    def divided(self) -> bool:
        """Return whether it is an instance of a GPU; a process sees one such and no more."""
        return self.uuid.startswith("MIG-")

    def __str__(self) -> str:
        """Return the index, and of an instance enough of its UUID to tell it from its neighbours."""
        return f"{self.index}:{self.uuid[:12]}" if self.divided else str(self.index)


class AdapterAsk(msgspec.Struct, frozen=True):
    """How one endpoint is asked for an answer by one of its adapters."""

    name: str
    """The name that clients write in `model`."""
    keys: str
    """JSON object: what the body sent to this endpoint says in place of what the client's says."""


_UNIX = "unix:"


def socket_path(url: str) -> str:
    """Return the path of the Unix socket that a replica's `url` names; empty: it names a host."""
    return url[len(_UNIX) :] if url.startswith(_UNIX) else ""


def socket_url(path: str) -> str:
    """Return the `url` of a server that listens on the Unix socket at `path`."""
    return _UNIX + path


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's address with its state, as the gateway sees it."""

    id: str
    """Stable name of the replica, `<model>-<index>`, for example `smollm2-135m-0`; external: `<model>-ext-<index>`."""
    model: str
    """The model name that clients ask for."""
    url: str
    """`unix:/path` (HTTP over that socket), `http://host:port` or `https://host:port` (external servers may add a path prefix)."""
    engine: str
    """Engine name as in freehold.yaml, for example `llama-cpp`."""
    state: ReplicaState
    """Only READY endpoints get traffic."""
    slots: int = 0
    """Requests that the engine works on at once; 0 is unknown."""
    kv_tokens: int = 0
    """Tokens that its KV cache holds at once, all requests together; 0 is unknown."""
    incarnation: int = 0
    """Counts the starts of the process behind this id, so that a restart is seen as a new address book entry."""
    upstream_model: str = ""
    """The name the engine knows the model by; empty: the same as `model`."""
    api_key: str = ""
    """Bearer key that the engine wants; empty: none. Never logged or shown."""
    adapters: tuple[AdapterAsk, ...] = ()
    """The adapters that it has loaded."""
    kind: str = ""
    """Of an external server: the engine by whose file it behaves; empty: not known, or the same as `engine`."""
    reuse_on_ask: bool = False
    """It uses what it kept of a prompt only for requests that ask for that."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model that this stack serves, whether or not a replica is ready now."""

    name: str
    engine: str
    created_s: int
    """Unix seconds for `/v1/models`: when the stack first served it."""
    max_context_tokens: int = 0
    """Longest prompt plus answer of one request, tokens; 0 is unknown."""
    stall_s: float = 0.0
    """How long its engine may say nothing before it is taken for frozen; 0: only the gateway's own timeouts say."""
    affinity: bool = True
    """Conversations return to the replica that has their beginning in its cache."""
    resume: str = "auto"
    """Whether a stream whose engine died is continued, in the words of `resume` in freehold.yaml."""
    adapters: tuple[str, ...] = ()
    """Names of its adapters, which clients ask for as they ask for models."""
    media_urls: bool = True
    """Whether requests may hold addresses that the engine fetches."""
    allow_keys: tuple[str, ...] = ()
    """Keys of requests that are the engine's own, and pass all the same."""


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a person sees of one replica (`freehold status`, `/metrics`)."""

    id: str
    model: str
    engine: str
    state: ReplicaState
    url: str = ""
    pid: int | None = None
    started_wall_s: float | None = None
    """When the present process was started, Unix seconds; None: no process."""
    ready_wall_s: float | None = None
    """When the present process became ready; None: it is not."""
    restarts: int = 0
    last_end: str = ""
    """Why its newest process that has ended did so, in words; empty: none has."""
    last_end_wall_s: float | None = None
    """When that was, Unix seconds."""
    tokens_per_s: float | None = None
    """Generated tokens per second over the last readings of the engine's own counter; None is unknown."""
    tokens_total: float | None = None
    """The engine's own counter of generated tokens since its start; None is unknown."""
    reason: str = ""
    """Why it is in this state, in one line: last exit, what is waited for."""
    hint: str = ""
    """What a person can do about it; empty when there is nothing to do."""
    gpus: tuple[GpuId, ...] | None = None
    """The GPUs that it sees; empty: none. None: it was given none to itself, since nobody could tell which there are, or
    somebody else runs it."""
    adapters: tuple[str, ...] = ()
    """Names of the adapters that it has loaded."""


class EngineEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica's newest process that has ended did so."""

    id: str
    """The replica's."""
    incarnation: int
    """Which of its processes: the number that its endpoint had."""
    kind: str
    """An `ExitKind` of `engines.base`; `stopped` also where Freehold ended it."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The immutable list of endpoints that the gateway reads; a newer one has a higher generation."""

    generation: int
    models: tuple[ModelEntry, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    replicas: tuple[ReplicaStatus, ...] = ()
    ends: tuple[EngineEnd, ...] = ()
    """Of each replica the newest end of a process; a replica whose first process still runs has none."""


class AgentMetrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What this node's agent counts, on its way to the gateway's `/metrics`: rendered, checked once, passed on unread."""

    text: str = ""
    """In Prometheus' text format, `freehold_health_*`; empty: no agent runs now, or what it said was no such text."""
    told_monotonic_s: float | None = None
    """When it spoke last, by the monotonic clock, which all processes of a machine share; None: it has not spoken yet."""


class EndpointLoad(msgspec.Struct, frozen=True):
    """What the gateway has under way at one endpoint."""

    requests: int
    bytes: int
    """Of these requests' answers, brought so far: moves while any of them gets on, and falls when one ends."""


class GatewayStats(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway tells its parent, about once a second."""

    listening: str
    """`http://host:port` it answers on."""
    in_flight: int = 0
    requests_total: int = 0
    errors_total: int = 0
    snapshot_generation: int = -1
    draining: bool = False
    log_dropped_total: int = 0
    settings_generation: int = 0
    """Which configuration its settings come from."""
    loads: dict[str, EndpointLoad] = {}
    """By endpoint id; one without requests is left out."""
    ejected: tuple[str, ...] = ()
    """Endpoints that it leaves alone for a while, or gives one request at a time to see whether they are well again."""
