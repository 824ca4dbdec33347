"""What one engine may have: which variables of the environment, and which files beside those that every engine needs.

Nothing is looked up on a disk here, since a disk may hang: `cage` does that in the engine's own process.
"""

import re
import site
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import freehold
from freehold.fleet.decisions.plan import ReplicaPlan

MARK = "FREEHOLD_LAUNCH"
"""Environment variable that every process of a launch inherits; its value is unique to the launch."""
NAMES = frozenset(
    {
        "PATH",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    }
)
"""Variables that every engine gets."""
PREFIXES = (
    *("LC_", "MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "UCX_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCM_", "ROCR_"),
)
"""Settings of the libraries under all engines: memory, threads, GPUs, links between them. An engine's own: `Engine.variables`."""
SECRET_ENDS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
"""Ends of names that are never inherited; an engine that needs such a variable gets it through `Command.env`."""


def engine_env(
    base: Mapping[str, str], added: Mapping[str, str], *, token: str, variables: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return an engine's environment: allowed variables of the controller's, what the engine file adds, and the mark.

    `variables` are names or, with `_` at the end, prefixes that this engine is allowed besides.
    """
    prefixes = (*PREFIXES, *(name for name in variables if name.endswith("_")))
    kept = {
        name: value
        for name, value in base.items()
        if (name in NAMES or name in variables or name.startswith(prefixes))
        and not name.upper().endswith(SECRET_ENDS)
    }
    user_base = (
        {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    )  # else looked for in HOME
    return {**kept, **user_base, **added, MARK: token}


_ROOT_CHARS = 48
"""Longest path of the folder for temporary files. A socket's path has room for 107 bytes (unix(7)), and those that vLLM makes in
the scratch folder have names of 36."""


def scratch_folder(token: str) -> str:
    """Return the folder of a launch: short, for this user alone, made at its start and removed at its end.

    Its name cannot be guessed, so no other user can make it first. `cage.make_folders` rejects a folder above it that others may write to.
    """
    root = tempfile.gettempdir()
    return f"{root if len(root) <= _ROOT_CHARS else '/tmp'}/freehold-{token[:16]}"  # noqa: S108 (see above)


def cage_of(plan: ReplicaPlan, env: Mapping[str, str], *, folder: Path) -> dict[str, object]:
    """Return the rules that `cage.confine` applies, for a launch with this environment.

    Of the paths, `run` are programs, `read` is only read, `write` is changed, and `named` are files to read or folders to
    change.
    """
    return {
        "folder": str(folder),
        "scratch": scratch_folder(env[MARK]),
        "environment": None if plan.environment is None else str(plan.environment),
        "run": [*_freehold(), *_listed(env, _LIBRARIES)],
        "read": [*_weights(plan), *_listed(env, _CERTIFICATES), *_named(plan, changed=False)],
        "write": [value for name, value in env.items() if "CACHE" in name and value.startswith("/")],
        "named": list(_named(plan, changed=True)),
        "shared_memory": plan.engine.shared_memory,
    }


_LIBRARIES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _listed(env: Mapping[str, str], names: tuple[str, ...]) -> Iterator[str]:
    """Yield the absolute paths that variables hold, several with `:` between them."""
    for name in names:
        yield from (path for path in env.get(name, "").split(":") if path.startswith("/"))


def _freehold() -> Iterator[str]:
    """Yield what the programs in `engines/programs` need: Freehold's code, and the environment that it is installed in."""
    yield from (str(Path(freehold.__file__).parent), sys.prefix, sys.base_prefix)
    yield from (path for path in sys.path if path.endswith("-packages"))


_CHANGED = re.compile(r"_dirs?$|_folder$|save|storage|export")
"""Options of engines whose flags do not tell which name files: those that name a folder to write to. Source: engines/flags/."""
_PIECE = re.compile(r"""[^\s,:="'{}\[\]]+""")
"""A path in a value that holds several, or in JSON."""


def _named(plan: ReplicaPlan, *, changed: bool) -> Iterator[str]:
    """Yield what may be paths in the options: of folders that the engine changes, or of what it only reads."""
    for option in plan.engine.options:
        value = plan.options.get(option.name)
        if isinstance(value, str) and changed == bool(option.file or _CHANGED.search(option.name)):
            yield from (each for each in (value, *_PIECE.findall(value)) if option.file or "/" in each)


def _weights(plan: ReplicaPlan) -> Iterator[str]:
    for path in (plan.weights, *(adapter.path for adapter in plan.adapters)):
        if path is not None:
            yield str(path)
