"""The GPUs of a node and the pool of each model: a list in freehold.yaml is the model's own, the rest is shared by all others. Pure.

Everything that is impossible is reported at once: too few GPUs, lists with missing GPUs, lists that overlap. No GPU is
assigned here (`assign`), and no driver is queried.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from freehold.core.events import GpuId
from freehold.core.problems import Problem
from freehold.fleet.decisions.plan import ReplicaPlan

Named = tuple[int | str, ...]
"""Numbers as nvidia-smi has them, or UUIDs or the beginnings of such."""
_FEWER = (
    "use fewer replicas, or fewer GPUs each; gpus: 0 runs a model without one; to put several on one GPU, give each of these models "
    "the same list in gpus, and gpus_shared: true"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpu:
    """One GPU that may be used."""

    id: GpuId
    kind: str = ""
    """Name and memory, as far as the driver reports them: GPUs of one replica should be alike."""
    whole: str = ""
    """Of an instance: the UUID of its GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGpus:
    """The GPUs of this node."""

    gpus: tuple[NodeGpu, ...] | None = None
    """Those that may be used, by number; None: not known."""
    hidden: tuple[GpuId, ...] = ()
    """Those that the user's CUDA_VISIBLE_DEVICES leaves out."""
    why: str = ""
    """Why they are not known."""


UNKNOWN = NodeGpus()
"""The driver was not queried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One replica that is to get GPUs."""

    plan: ReplicaPlan
    count: int | None
    """How many it takes; None: any number."""
    named: Named | None = None
    """The model's own list; None: it has none."""
    shared: bool = False
    """True: other models may list the same GPUs, and its replicas may share them."""

    @property
    def shares(self) -> bool:
        """Return whether another replica may use its GPUs."""
        return self.shared or self.count is None


def find_gpus(word: int | str, gpus: Sequence[NodeGpu]) -> list[NodeGpu]:
    """Return the GPU of a number or of a UUID prefix, or all instances of a divided one; empty: none or several match."""
    if isinstance(word, int):
        return [gpu for gpu in gpus if gpu.id.index == word]
    found = [gpu for gpu in gpus if word and word in (gpu.id.uuid[: len(word)], gpu.whole[: len(word)])]
    one = len(found) == 1 or (not word.startswith("MIG-") and len({gpu.id.index for gpu in found}) == 1)
    return found if one else []


def visible_to_user(gpus: Sequence[NodeGpu], variable: str | None) -> NodeGpus:
    """Return which GPUs a process with this CUDA_VISIBLE_DEVICES would see; None: the variable is not set.

    As in CUDA, entries after one that names no GPU do not count.
    """
    if variable is None:
        return NodeGpus(gpus=tuple(gpus))
    seen: list[NodeGpu] = []
    for word in variable.split(","):
        text = word.strip()
        found = find_gpus(int(text) if re.fullmatch(r"\d{1,4}", text) else text, gpus)
        if not found:
            break
        seen += (gpu for gpu in found if gpu not in seen)
    return NodeGpus(
        gpus=tuple(gpu for gpu in gpus if gpu in seen),
        hidden=tuple(gpu.id for gpu in gpus if gpu not in seen),
    )


def pools_of(wants: Sequence[Want], gpus: Sequence[NodeGpu]) -> Mapping[str, tuple[NodeGpu, ...]]:
    """Return the GPUs that each model may use: those of its list, else those in no list."""
    own = {
        model: _listed(of[0].named or (), gpus)
        for model, of in _by_model(wants).items()
        if of[0].named is not None
    }
    named = {gpu for listed in own.values() for gpu in listed}
    rest = tuple(gpu for gpu in gpus if gpu not in named)
    return {want.plan.model: own.get(want.plan.model, rest) for want in wants}


def pool_problems(wants: Sequence[Want], node: NodeGpus) -> Iterator[Problem]:
    """Yield every reason why the wants cannot be met; `where` is a model's name."""
    gpus, models = node.gpus or (), _by_model(wants)
    lost = {model: list(_not_there(model, of[0].named or (), node)) for model, of in models.items()}
    yield from (problem for problems in lost.values() for problem in problems)
    pools = pools_of(wants, gpus)
    yield from _overlaps(models, pools)
    for model, of in models.items():
        if of[0].named is not None and not lost[model]:
            yield from _short_list(model, of, pools[model])
    yield from _too_few([(m, of) for m, of in models.items() if of[0].named is None], pools, node)


def _by_model(wants: Sequence[Want]) -> dict[str, list[Want]]:
    found: dict[str, list[Want]] = {}
    for want in wants:
        found.setdefault(want.plan.model, []).append(want)
    return found


def _listed(named: Named, gpus: Sequence[NodeGpu]) -> tuple[NodeGpu, ...]:
    found = [gpu for word in named for gpu in find_gpus(word, gpus)]
    return tuple(gpu for gpu in gpus if gpu in found)


def _not_there(model: str, named: Named, node: NodeGpus) -> Iterator[Problem]:
    hidden = [NodeGpu(id=gpu) for gpu in node.hidden]
    there = ", ".join(str(gpu.id) for gpu in node.gpus or ()) or "none"
    for word in named:
        if find_gpus(word, node.gpus or ()):
            continue
        why = "CUDA_VISIBLE_DEVICES hides it" if find_gpus(word, hidden) else "this node does not have it"
        yield Problem(where=model, message=f"{model}: gpus names {word}: {why}", hint=f"available: {there}")


def _overlaps(
    models: Mapping[str, Sequence[Want]], pools: Mapping[str, Sequence[NodeGpu]]
) -> Iterator[Problem]:
    listed = [model for model, of in models.items() if of[0].named is not None]
    for one, other in combinations(listed, 2):
        both = [str(gpu.id) for gpu in pools[one] if gpu in pools[other]]
        if both and not (models[one][0].shared and models[other][0].shared):
            message = f"{one} and {other} both name the GPUs {', '.join(both)}"
            yield Problem(
                where=other, message=message, hint="to share them, write gpus_shared: true for both models"
            )


def _short_list(model: str, of: Sequence[Want], pool: Sequence[NodeGpu]) -> Iterator[Problem]:
    count = of[0].count or 0
    need = count if of[0].shared else count * len(of)
    usable = [gpu for gpu in pool if count == 1 or not gpu.id.divided]
    if need > len(usable):
        message = f"{model}: {_times(of)}, and gpus names {len(usable)} that can be used so"
        yield Problem(where=model, message=message, hint=_FEWER)


def _too_few(
    models: Sequence[tuple[str, Sequence[Want]]], pools: Mapping[str, Sequence[NodeGpu]], node: NodeGpus
) -> Iterator[Problem]:
    takers = [(model, of) for model, of in models if of[0].count]
    if not takers:
        return
    pool = pools[takers[0][0]]
    whole = sum(not gpu.id.divided for gpu in pool)
    need = sum(len(of) * (of[0].count or 0) for _, of in takers)
    joined = sum(len(of) * (of[0].count or 0) for _, of in takers if (of[0].count or 0) > 1)
    if need <= len(pool) and joined <= whole:
        return
    said = "; ".join(f"{model}: {_times(of)}" for model, of in takers)
    supply = f"{len(pool)} available" if need > len(pool) else f"{whole} of the {len(pool)} are whole GPUs"
    message = f"too few GPUs: {said}; that is {need} in all, and {supply}{_why_so_few(pool, node)}"
    yield Problem(where=takers[0][0], message=message, hint=_FEWER)


def _times(of: Sequence[Want]) -> str:
    count = of[0].count or 0
    each = "1 GPU" if count == 1 else f"{count} GPUs"
    return f"1 replica takes {each}" if len(of) == 1 else f"{len(of)} replicas take {each} each"


def _why_so_few(pool: Sequence[NodeGpu], node: NodeGpus) -> str:
    named = len(node.gpus or ()) - len(pool)
    parts = [f"{named} are in other models' lists"] * bool(named)
    parts += [f"CUDA_VISIBLE_DEVICES hides {len(node.hidden)}"] * bool(node.hidden)
    return f" ({', '.join(parts)})" if parts else ""
