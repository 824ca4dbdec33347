"""A folder of prebuilt TensorRT engines fits one version of TensorRT-LLM and one GPU architecture: does it fit this node?

An engine file is compiled for a GPU; on another one, or with another TensorRT, it fails after minutes of loading.
TensorRT-LLM writes its version and the limits of the build into the folder's `config.json`. What it does not write there
(GPU architecture, driver, CUDA) Freehold notes in a record beside the folder, `<folder>.engine.json`, on a node where it
runs. Both are compared with the node before a start. What is not known on either side is said to be unknown; it is no
reason to refuse. It reads no file and asks no GPU.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from freehold.core.problems import Problem
from freehold.engines.base import NodeFacts, Value
from freehold.engines.shared.json_object import json_object

CONFIG = "config.json"
"""In the folder. Source: TensorRT-LLM, Engine.from_dir."""
RECORD_END = ".engine.json"
"""The record is called as the folder is, with this behind."""
LIMITS = ("max_batch_size", "max_num_tokens", "max_seq_len", "max_beam_width")
"""What a build fixes, and options may not exceed. Source: TensorRT-LLM, BuildConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """What a folder of engines was built for; "" and 0 are unknown."""

    version: str = ""
    """Of TensorRT-LLM."""
    architecture: str = ""
    """Compute capability of the GPU, such as `9.0`."""
    driver: str = ""
    cuda: str = ""
    """Newest CUDA that the driver has, such as `13.0`."""
    gpus: int = 0
    """GPUs that it runs on: tensor times pipeline parallel."""
    limits: tuple[tuple[str, int], ...] = ()
    """Of LIMITS, those that the build has."""


def is_engine_folder(config: bytes) -> bool:
    """Return whether a folder's `config.json` is that of built engines, not that of a Hugging Face model."""
    return "build_config" in json_object(config)


def read_record(config: bytes, noted: bytes = b"") -> EngineRecord:
    """Return what `config.json` says, filled up with what the record beside the folder says; total."""
    said, beside = json_object(config), json_object(noted)
    build = said.get("build_config")
    build = build if isinstance(build, dict) else {}
    limits = tuple((name, build[name]) for name in LIMITS if _positive(build.get(name)))
    return EngineRecord(
        version=_text(said.get("version")) or _text(beside.get("version")),
        architecture=_text(beside.get("architecture")),
        driver=_text(beside.get("driver")),
        cuda=_text(beside.get("cuda")),
        gpus=_world(said),
        limits=limits,
    )


def _world(said: Mapping[str, object]) -> int:
    pretrained = said.get("pretrained_config")
    mapping = pretrained.get("mapping") if isinstance(pretrained, dict) else None
    if not isinstance(mapping, dict):
        return 0
    world = mapping.get("world_size")
    return world if type(world) is int and world > 0 else 0


def note(config: bytes, facts: NodeFacts) -> str:
    """Return the record to keep beside a folder that runs on this node, as JSON text."""
    record = read_record(config)
    kept = {
        "version": record.version or facts.engine_version,
        "architecture": facts.architectures[0] if len(set(facts.architectures)) == 1 else "",
        "driver": facts.driver,
        "cuda": facts.cuda,
    }
    return json.dumps(kept, indent=1) + "\n"


def fits(record: EngineRecord, facts: NodeFacts, *, options: Mapping[str, Value]) -> list[Problem]:
    """Return why the engines cannot run on this node under these options; `where` names what is compared."""
    found = [
        _version(record, facts),
        _architecture(record, facts),
        _driver(record, facts),
        _gpus(record, facts),
    ]
    found += [_limit(name, most, options.get(name)) for name, most in record.limits]
    return [problem for problem in found if problem is not None]


def unknowns(record: EngineRecord, facts: NodeFacts) -> list[str]:
    """Return what could not be compared, each with who does not know it."""
    pairs = (
        ("TensorRT-LLM version", record.version, facts.engine_version),
        ("GPU architecture", record.architecture, "".join(facts.architectures[:1])),
        ("CUDA of the driver", record.cuda, facts.cuda),
        ("number of GPUs", str(record.gpus or ""), "".join(facts.architectures[:1])),
    )
    sides = (
        (name, "the record" if not built else "this node")
        for name, built, here in pairs
        if not (built and here)
    )
    return [f"{name}: not known of {side}" for name, side in sides]


def _version(record: EngineRecord, facts: NodeFacts) -> Problem | None:
    if not (record.version and facts.engine_version) or record.version == facts.engine_version:
        return None
    return Problem(
        where="TensorRT-LLM",
        message=f"the engines were built by TensorRT-LLM {record.version}, here is {facts.engine_version}",
        hint=f"build them anew with {facts.engine_version}, install {record.version}, or serve the Hugging Face folder "
        "with backend: pytorch, which needs no build",
    )


def _architecture(record: EngineRecord, facts: NodeFacts) -> Problem | None:
    others = sorted(set(facts.architectures) - {record.architecture})
    if not record.architecture or not others:
        return None
    return Problem(
        where="GPU architecture",
        message=f"the engines were built for compute capability {record.architecture}, this node's GPUs have "
        f"{', '.join(others)}",
        hint="build them anew on this kind of GPU, or serve the Hugging Face folder with backend: pytorch",
    )


def _driver(record: EngineRecord, facts: NodeFacts) -> Problem | None:
    built, here = _major(record.cuda), _major(facts.cuda)
    if built is None or here is None or here >= built:
        return None
    return Problem(
        where="driver",
        message=f"the engines ran with CUDA {record.cuda} (driver {record.driver or 'unknown'}), this node's driver "
        f"{facts.driver or ''} has at most CUDA {facts.cuda}",
        hint="take a newer driver; within one major version of CUDA an older one will do",
    )


def _gpus(record: EngineRecord, facts: NodeFacts) -> Problem | None:
    if not record.gpus or not facts.architectures or len(facts.architectures) >= record.gpus:
        return None
    return Problem(
        where="GPUs",
        message=f"the engines were built for {record.gpus} GPUs, this node has {len(facts.architectures)}",
        hint="build them for fewer GPUs (tp_size times pp_size)",
    )


def _limit(name: str, most: int, wanted: Value | None) -> Problem | None:
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted <= most:
        return None
    return Problem(
        where=name,
        message=f"{name} is {wanted}, but the engines were built for at most {most}",
        hint=f"lower it to {most}, or build them anew",
    )


def _major(version: str) -> int | None:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _positive(value: object) -> bool:
    return type(value) is int and value > 0
