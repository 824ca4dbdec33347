"""The results of a bench as load tests for `freehold size` and `plan`: one row per candidate, at its best load.

Those two reckon with GPUs of the catalog, so a bench without one has nothing for them, which is reported. Which model was
benched is not compared with the one that is asked about: the row's source names it, and physics is checked as of any load test.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import get_args

from freehold.bench.analysis.choose import Best, best_of
from freehold.bench.analysis.compare import runs
from freehold.bench.analysis.results import BenchFile, Candidate, Scalar, Through
from freehold.bench.results_file import read
from freehold.core.problems import Problem
from freehold.sizing.model.words import Engine, Quant
from freehold.sizing.replica.answer import MeasuredSpeed

_WHERE = "--bench"
_SILENT = frozenset({"sxm", "oam"})
"""Parts of a catalog id that NVML's names often leave out: a board's usual form. Source: NVML says `NVIDIA H200` and
`NVIDIA H100 80GB HBM3` for SXM boards, and `NVIDIA H100 PCIe` for cards."""


def rows_from_bench(path: Path, gpus: Collection[str]) -> list[MeasuredSpeed] | list[Problem]:
    """Return the rows of a results file, most goodput first, or its problems; `gpus` are the catalog's ids."""
    bench = read(path)
    if isinstance(bench, Problem):
        return [Problem(where=_WHERE, message=f"{bench.where} {bench.message}", hint=bench.hint)]
    names = {gpu.name for gpu in bench.machine.gpus}
    if len(names) != 1:
        said = "different GPUs" if names else f"no GPU ({bench.machine.cpu or 'unknown CPU'})"
        hint = "size and plan reckon with GPUs of the catalog; bench where those are"
        return [Problem(where=_WHERE, message=f"{path} was measured on {said}", hint=hint)]
    name = names.pop()
    gpu = catalog_id(name, gpus)
    if gpu is None:
        hint = "write a row by hand for --measured, or add the GPU with --prices"
        return [Problem(where=_WHERE, message=f"the catalog does not know the GPU {name!r}", hint=hint)]
    found = sorted(_rows(bench, gpu), key=lambda row: -row.output_tokens_per_s / row.gpus)
    if not found:
        return [
            Problem(where=_WHERE, message=f"no engine kept the SLO in {path}", hint="measure at a looser SLO")
        ]
    return found


def _rows(bench: BenchFile, gpu: str) -> Iterator[MeasuredSpeed]:
    through: Through = "direct" if any(each.through == "direct" for each in bench.results) else "gateway"
    for candidate in bench.candidates:
        best = best_of(bench, candidate, through)
        if best is None or candidate.engine not in get_args(Engine):
            continue
        yield MeasuredSpeed(
            engine=candidate.engine,  # type: ignore[arg-type] # checked
            gpu=gpu,
            gpus=_gpus(candidate, len(bench.machine.gpus)),
            quant=_quant(candidate),
            output_tokens_per_s=best.goodput.median,
            concurrency=_concurrency(best),
            source=f"freehold bench of {candidate.model}, {bench.made_at}: {candidate.id} at {best.load.words()}",
        )


def _gpus(candidate: Candidate, here: int) -> int:
    """Return over how many GPUs it was spread: those that it saw, else llama.cpp takes all and others what they are set to."""
    if candidate.gpus:
        return len(candidate.gpus)
    if candidate.engine == "llama-cpp":
        return here
    options: Mapping[str, Scalar] = candidate.options
    return math.prod(max(1, *(int(options.get(name, 1)) for name in names)) for names in _SPREAD)


_SPREAD = (("tensor_parallel_size", "tp_size"), ("pipeline_parallel_size", "pp_size"))
"""What engines call the GPUs that share each layer, and the groups of layers. Source: the flag lists of vLLM; SGLang, TensorRT-LLM."""


def _quant(candidate: Candidate) -> Quant:
    if candidate.weights_format == "gguf":
        return "gguf"
    said = str(candidate.options.get("quantization", ""))
    return said if said in get_args(Quant) else "bf16"  # type: ignore[return-value] # checked


def _concurrency(best: Best) -> int:
    if best.load.kind == "concurrency":
        return int(best.load.value)
    found = runs(each.figures.in_flight for each in best.results)
    return max(1, round(found.median)) if found is not None else 1


def catalog_id(name: str, gpus: Collection[str]) -> str | None:
    """Return the catalog's id of a GPU by NVML's name for it; None: none fits, or several do."""
    said = re.findall(r"[a-z0-9]+", name.lower())
    fitting = [each for each in gpus if _fits(each, said)]
    most = max((len(_said(each, said)) for each in fitting), default=0)
    best = [each for each in fitting if len(_said(each, said)) == most]
    return best[0] if len(best) == 1 else None


def _said(catalog_gpu: str, said: list[str]) -> list[str]:
    return [part for part in catalog_gpu.split("-") if any(word.startswith(part) for word in said)]


def _fits(catalog_gpu: str, said: list[str]) -> bool:
    model, *parts = catalog_gpu.split("-")
    spoken = _said(catalog_gpu, said)
    if model not in said:
        return False
    missing = {part for part in parts if part not in spoken}
    return missing <= (frozenset() if "pcie" in said else _SILENT)
