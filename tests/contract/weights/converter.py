"""A stand-in for the Python of an engine's environment, which is given a converter and misbehaves on request.

It is a real child: `mode` in a file beside it says how it ends, `version` what it calls itself, `calls` what it was asked.
"""

import sys
from pathlib import Path

import msgspec

from freehold.fleet.environments.lookup import MANIFEST, Manifest

PYTHON = """#!{python}
# Stands in for the Python of an engine's environment: it is given a converter and its arguments.
import json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
mode = (here / "mode").read_text()
flags = [each for each in sys.argv[1:] if each in ("-I", "-E", "-s", "-B")]
script, asked, *rest = sys.argv[1 + len(flags):]
with (here / "calls").open("a") as calls:
    calls.write(asked + "\\n")
def say(**words): print(json.dumps(words), flush=True)
if asked == "versions":
    if mode == "bare":
        say(error="gguf is not installed beside " + sys.executable); sys.exit(1)
    say(versions={{"transformers": (here / "version").read_text(), "gguf": "1"}}); sys.exit(0)
if asked != "convert":
    out = Path(rest[rest.index("--outfile") + 1]); out.write_bytes(b"GGUF" + Path(asked, "model.safetensors").read_bytes())
    print("INFO: not for us", file=sys.stderr); sys.exit(0)
source, folder = Path(rest[0]), Path(rest[1])
assert rest[2] == "bfloat16" and os.environ["HF_HUB_OFFLINE"] == "1" and os.environ["CUDA_VISIBLE_DEVICES"] == ""
say(doing="unpacking")
if mode == "noise": print("progress: 50%"); sys.stderr.write("x" * 1000000 + "\\n")
if mode == "hang":
    (here / "pid").write_text(str(os.getpid()))
    time.sleep(600)
if mode == "killed": os.kill(os.getpid(), 9)
if mode == "silent": sys.exit(0)
if mode == "full": say(error="OSError: [Errno 28] No space left on device"); sys.exit(1)
if mode == "unknown": say(error="ValueError: GGUF model with architecture x is not supported yet."); sys.exit(1)
if mode == "traceback": sys.stderr.write("Traceback\\n  line\\nTypeError: boom\\n"); sys.exit(1)
(folder / "model.safetensors").write_bytes(source.read_bytes()[::-1])
(folder / "config.json").write_text("{{}}")
say(done=True)
"""


def write_converter(python: Path) -> Path:
    """Write the stand-in, which does well until its `mode` says otherwise; returns its path."""
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (python.parent / "mode").write_text("well")
    (python.parent / "version").write_text("5.0")
    return python


def install(data: Path, name: str, *packages: str) -> Path:
    """Make what looks like an installed environment with these packages; returns its Python."""
    folder = data / "engines" / name
    python = write_converter(folder / "bin" / "python")
    for package in packages:
        (folder / "lib" / "python3.11" / "site-packages" / package).mkdir(parents=True)
    program = folder / "bin" / "some"
    program.symlink_to(python)
    recipe, _, version = name.rpartition("-")
    manifest = Manifest(recipe=recipe, version=version, python="3.11", requirements_sha256="", made_at="")
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return python
