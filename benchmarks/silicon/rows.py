"""The measured rows that aiconfigurator-core ships (systems/silicon_sample.csv), as asks of sizing with what was measured.

What is not in the file but in the published scripts of the sweeps that it collects is added here, with its source. Rows that
cannot be compared are set aside with a reason, never dropped in silence.
"""

import csv
import importlib.util
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from freehold.catalog.facts import Catalog
from freehold.sizing.model.from_catalog import shape_of
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.answer import SizeAsk
from freehold.sizing.replica.memory import visible_bytes, weights_bytes

PACKAGE = "aiconfigurator_core"
FILE = Path("systems") / "silicon_sample.csv"
_MODELS = {
    "Llama-3.1-70B": "llama-3.3-70b",  # the same architecture
    "Llama-3.1-8B": "llama-3.1-8b",
    "Qwen3-32B": "qwen3-32b",
    "Qwen3-235B": "qwen3-235b-a22b",
    "MiniMax-M2.5": "minimax-m2.5",
    "DeepSeek-R1": "deepseek-v3",
    "DeepSeek-V3": "deepseek-v3",
    "Kimi-K2.5": "kimi-k2",
    "gpt-oss-120b": "gpt-oss-120b",
    "GLM-5": "glm-5",
}
_GPUS = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200-nvl72",
}
_ENGINES: dict[str, Engine] = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt-llm"}
_QUANTS: dict[str, Quant] = {"": "bf16", "bf16": "bf16", "fp8": "fp8", "fp4": "fp4", "int4": "int4"}
SWEEP_LENGTH = 0.9
"""Mean length over nominal in the public nightly sweep: its prompts and answers are 0.8 to 1 of the nominal length, evenly
(InferenceMAX README: RANDOM_RANGE_RATIO 0.8)."""
FASTEST_PART = 0.6
"""Of peak operations, what no serving run reaches; faster ones did not calculate their prompts (research 3.9)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured run."""

    ask: SizeAsk
    group: tuple[str, str, str, str]
    """Engine, model, quantisation, GPU."""
    output_tokens_per_s: float
    ttft_s: float
    itl_s: float
    sweep: bool
    """Whether it is of the public nightly sweep, which sends ten prompts per client, all clients starting together."""
    aside: str
    """Why it is set aside; empty: it counts."""


def find_file(said: Path | None) -> Path | None:
    """Return the file that was named, or the one of the installed package; None: neither."""
    if said is not None:
        return said
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((Path(folder) / FILE for folder in folders if (Path(folder) / FILE).exists()), None)


def read_rows(path: Path, catalog: Catalog) -> tuple[list[Row], Counter[str]]:
    """Return the rows that sizing has words for, and how many others there are by reason."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    left_out = Counter(_no_words_for(line) for line in lines if _no_words_for(line))
    said = [_row(line, catalog) for line in lines if not _no_words_for(line)]
    rows = [row for row in said if _names_enough(row.ask)]
    left_out["fewer GPUs named than the weights need"] = len(said) - len(rows)
    impossible = {row.group for row in rows if _work_part(row) > FASTEST_PART}
    return [_set_aside(row, impossible) for row in rows], left_out


def _no_words_for(line: dict[str, str]) -> str:
    if line["mode"] != "agg":
        return "prompts and answers on separate GPUs"
    if _model_of(line) is None:
        return "a model whose layers differ (hybrid attention)"
    if line["system"] not in _GPUS or line["backend"] not in _ENGINES or line["precision"] not in _QUANTS:
        return "a GPU, engine or precision that sizing does not know"
    if int(line["attention_dp_size"] or 1) > 1 or int(line["tp_size"]) > 8:
        return "data-parallel attention or more than eight ranks"
    return ""


def _names_enough(ask: SizeAsk) -> bool:
    return weights_bytes(ask.shape, ask.quant) < ask.gpus * visible_bytes(ask.gpu)


def _model_of(line: dict[str, str]) -> str | None:
    return next((known for part, known in _MODELS.items() if part in line["model_path"]), None)


def _row(line: dict[str, str], catalog: Catalog) -> Row:
    source = line["silicon_data_source"]
    sweep = "aic-auto-gap-analysis" not in source  # the others are NVIDIA's own runs, at nominal lengths
    part = SWEEP_LENGTH if sweep else 1.0
    said = re.search(r"silicon_concurrency=(\d+)", source)
    slots = int(line["batch_size"])
    concurrency = int(said[1]) if said else slots
    shape = shape_of(catalog.models[_model_of(line) or ""])
    engine, quant = _ENGINES[line["backend"]], _quant(line, shape)
    ask = SizeAsk(
        shape=shape,
        gpu=catalog.gpus[_GPUS[line["system"]]],
        gpus=int(line["tp_size"]) * int(line["pp_size"]),
        engine=engine,
        quant=quant,
        kv_bits=_kv_bits(engine, shape, sweep=sweep),
        input_tokens=int(line["isl"]) * part,
        output_tokens=int(line["osl"]) * part,
        concurrency=concurrency,
    )
    ttft, itl = float(line["silicon_ttft_ms"]) / 1e3, float(line["silicon_tpot_ms"]) / 1e3
    return Row(
        ask=ask,
        group=(engine, shape.name, quant, ask.gpu.id),
        output_tokens_per_s=concurrency * ask.output_tokens / (ttft + (ask.output_tokens - 1) * itl),
        ttft_s=ttft,
        itl_s=itl,
        sweep=sweep,
        aside=_why_aside(source, concurrency, slots),
    )


def _quant(line: dict[str, str], shape: ModelShape) -> Quant:
    return "mxfp4" if shape.name.startswith("gpt-oss") else _QUANTS[line["precision"]]


def _kv_bits(engine: Engine, shape: ModelShape, *, sweep: bool) -> int:
    """Return the KV cache's bits: the sweep's scripts set fp8 for Llama 70B on every engine and for TensorRT-LLM throughout.

    Source: InferenceX, benchmarks/70b_fp8_h100_slurm.sh, 70b_fp8_h200_slurm.sh, 70b_fp8_b200_docker.sh,
    70b_fp8_h200_trt_slurm.sh (kv-cache-dtype: fp8); gptoss_fp4_h100_docker.sh sets none.
    """
    return 8 if sweep and (engine == "tensorrt-llm" or shape.name.startswith("llama-3.3-70b")) else 16


def _why_aside(source: str, concurrency: int, slots: int) -> str:
    if "dynamo_version" in source or "gtl_" in source:
        return "behind a router with prefix caching of its own (dynamo)"
    return "more clients than slots" if concurrency > slots else ""


def _work_part(row: Row) -> float:
    """Return the operations/s that the run must have done, over the peak of its GPUs."""
    ask = row.ask
    tokens = row.output_tokens_per_s * (1 + ask.input_tokens / ask.output_tokens)
    active = ask.shape.params_active - ask.shape.params_embedding
    return 2 * active * tokens / (ask.gpus * _peak(ask))


def _peak(ask: SizeAsk) -> float:
    peaks = {
        "fp8": ask.gpu.fp8_dense_tflops,
        "fp4": ask.gpu.fp4_dense_tflops,
        "mxfp4": ask.gpu.fp4_dense_tflops,
    }
    return (peaks.get(ask.quant) or ask.gpu.bf16_dense_tflops) * 1e12


def _set_aside(row: Row, impossible: set[tuple[str, str, str, str]]) -> Row:
    if row.aside or row.group not in impossible:
        return row
    reason = "a group with runs of more than 60 % of peak operations: its prompts were cached"
    return Row(**{**row.__dict__, "aside": reason})
