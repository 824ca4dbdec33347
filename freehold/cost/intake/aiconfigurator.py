"""What AIConfigurator says of a sized replica: NVIDIA's model of the same engines, from tables of measured kernels.

The owner of `aiconfigurator-core` here (the extra `aic`, some 585 MB): it is imported only when a second opinion is asked for and
may be one. It corrects nothing of ours: both figures are shown. No network is used: the library fetches models that it
does not ship, so only those that it ships are asked for. It estimates no fleet and no replica across nodes.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from importlib.resources import files
from typing import Any

import msgspec

from freehold.sizing.replica.answer import SecondOpinion, SizeAsk, Sized

PACKAGE = "aiconfigurator-core"
TESTED = "0.12.0"
"""The release whose modules are called here: beyond its small facade it promises nothing, so no other is tried."""
INSTALL = "pip install --require-hashes -r requirements/aic.txt"


class _ShippedModel(msgspec.Struct, frozen=True):
    """A model that the package ships."""

    id: str
    fp8: str = "fp8"
    """What its FP8 checkpoint is to the library: scaled by tensor, or by block where only such weights are published."""


class _Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its names by ours, of aiconfigurator.toml."""

    engines: dict[str, str]
    systems: dict[str, str]
    models: dict[str, _ShippedModel]


_NAMES = msgspec.toml.decode((files(__package__) / "aiconfigurator.toml").read_bytes(), type=_Names)
_ENGINES, _SYSTEMS, _MODELS = _NAMES.engines, _NAMES.systems, _NAMES.models


def second_opinion(sized: Sized) -> SecondOpinion | str:
    """Return AIConfigurator's figures of the same replica at the same load, or a sentence that says why there are none.

    Rates are of the whole replica, times in ms, without a range. The first call takes some seconds: it loads its tables.
    """
    why = _why_not_covered(sized) or _why_not_installed()
    if why:
        return why
    with _quiet():
        return _asked(sized)


def _why_not_covered(sized: Sized) -> str:
    ask = sized.ask
    if not sized.concurrency:
        return "Freehold has no speed to compare with"
    if ask.engine not in _ENGINES:
        return f"AIConfigurator does not know the engine {ask.engine}; it knows {', '.join(_ENGINES)}"
    if ask.gpu.id not in _SYSTEMS:
        return f"AIConfigurator has no measurements of {ask.gpu.id}; it has some of {', '.join(_SYSTEMS)}"
    if ask.shape.name not in _MODELS:
        return f"AIConfigurator does not ship the model {ask.shape.name}; it ships {', '.join(_MODELS)}"
    if sized.pipeline_parallel > 1:
        return "AIConfigurator would reckon with another network between the pipeline stages than was asked"
    return "AIConfigurator needs two output tokens or more" if round(ask.output_tokens) < 2 else ""


def _why_not_installed() -> str:
    hint = f"{INSTALL}, into the environment that Freehold runs in"
    try:
        found = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return f"AIConfigurator is not installed: {hint}"
    if found != TESTED:
        return f"{PACKAGE} {found} is installed, Freehold knows how to ask {TESTED}: {hint}"
    return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings about tables of models that were not asked for off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _asked(sized: Sized) -> SecondOpinion | str:
    try:
        from aiconfigurator_core.sdk import errors, utils  # noqa: PLC0415 - seldom installed, 0.7 s to import
    except ImportError as error:
        return f"{PACKAGE} cannot be imported ({error}): {INSTALL}"
    ask, known = sized.ask, _MODELS[sized.ask.shape.name]
    if not _same(ask, utils.get_model_config_from_model_path(known.id)):
        return (
            f"{ask.shape.name} has other dimensions than {known.id}, which AIConfigurator knows by that name"
        )
    try:
        return _opinion(sized, known, _estimate(sized, known))
    except errors.PerfDataNotAvailableError:
        what = f"{ask.quant} weights and a {ask.kv_bits}-bit KV cache"
        return f"AIConfigurator has no measurements for {ask.shape.name} with {what} on {ask.gpu.id} with {ask.engine}"
    except (ValueError, RuntimeError, LookupError) as error:  # what it raises where it cannot go on
        return f"AIConfigurator gave no figure: {' '.join(str(error).split())[:200]}"


def _same(ask: SizeAsk, theirs: Mapping[str, Any]) -> bool:
    """Return whether the dimensions agree that its figures depend on; MLA has no KV heads to compare."""
    ours = ask.shape
    pairs = [
        (ours.layers, theirs["layers"]),
        (ours.hidden, theirs["hidden_size"]),
        (ours.heads, theirs["n"]),
        (ours.vocab, theirs["vocab"]),
        (ours.experts, theirs["num_experts"]),
        (ours.experts_per_token, theirs["topk"]),
    ]
    if ours.attention != "mla":
        pairs.append((ours.kv_heads, theirs["n_kv"]))
    return all(mine == its for mine, its in pairs)


def _estimate(sized: Sized, known: _ShippedModel) -> Any:
    """Return its summary of continuous batching in which one whole prompt passes beside the answers at a time."""
    from aiconfigurator_core.sdk import config, models, perf_database  # noqa: PLC0415
    from aiconfigurator_core.sdk.backends import factory  # noqa: PLC0415

    ask = sized.ask
    backend, system = _ENGINES[ask.engine], _SYSTEMS[ask.gpu.id]
    version = perf_database.get_latest_database_version(
        system, backend
    )  # without a version parts of it crash
    database = version and perf_database.get_database(system, backend, version)
    if not database:
        message = f"no tables of {backend} on {system}"
        raise LookupError(message)
    prompt = max(1, round(ask.input_tokens))
    load = config.RuntimeConfig(
        batch_size=sized.concurrency,
        isl=prompt,
        osl=round(ask.output_tokens),
        prefix=min(prompt - 1, round(ask.input_tokens * ask.cached_share)),
    )
    model = models.get_model(known.id, _layout(sized, known), backend)
    return factory.get_backend(backend).run_agg(model, database, load, ctx_tokens=prompt)


def _layout(sized: Sized, known: _ShippedModel) -> Any:
    from aiconfigurator_core.sdk import common, config  # noqa: PLC0415

    gemm, experts = _quants(sized.ask, known)
    return config.ModelConfig(
        tp_size=sized.tensor_parallel,
        moe_tp_size=sized.tensor_parallel,
        moe_ep_size=1,
        gemm_quant_mode=common.GEMMQuantMode[gemm],
        moe_quant_mode=common.MoEQuantMode[experts],
        kvcache_quant_mode=common.KVCacheQuantMode["fp8" if sized.ask.kv_bits == 8 else "bfloat16"],
    )


def _quants(ask: SizeAsk, known: _ShippedModel) -> tuple[str, str]:
    """Return its words for how dense and expert weights are stored; raises ValueError where it has none."""
    fp4 = "nvfp4" if ask.gpu.fp4_dense_tflops else "nvfp4_wo"
    words: dict[str, tuple[str, str]] = {
        "bf16": ("bfloat16", "bfloat16"),
        "fp8": (known.fp8, known.fp8),
        "fp4": (fp4, fp4),
        "int4": ("int4_wo", "int4_wo"),
    }
    if ask.shape.experts:
        words["mxfp4"] = ("bfloat16", "w4a16_mxfp4")  # as gpt-oss is stored: only its experts have 4 bit
    else:
        words["int8"] = ("int8_wo", "bfloat16")
    if ask.quant not in words:
        message = f"it has no word for {ask.quant} weights of {ask.shape.name}"
        raise ValueError(message)
    return words[ask.quant]


def _opinion(sized: Sized, known: _ShippedModel, summary: Any) -> SecondOpinion:
    found = summary.get_result_dict()
    notes = [f"as {known.id}"]
    if sized.ask.shape.experts:
        notes.append("every expert spread over all GPUs")
    if summary.check_oom() or summary.check_kv_cache_oom():
        notes.append("by its count the memory does not hold that many sequences")
    return SecondOpinion(
        output_tokens_per_s=float(found["tokens/s"]),
        ttft_ms=float(found["ttft"]),
        itl_ms=float(found["tpot"]),
        version=f"{PACKAGE} {TESTED}, {found['backend']} {found['version']}",
        note="; ".join(notes),
    )
