"""Read a long LiteLLM spend log and print what it takes: CPU seconds and peak memory.

`python benchmarks/usage_import.py --rows 1000000`: exit code 0 when it stays below both bars and the sums are right, else 3.
The file is made first, in another process, so that neither its time nor its memory counts. `--format jsonl` and
`--format json` make the same rows in the other two shapes, `--metadata` puts half a kilobyte of metadata in each.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

CPU_S_MAX = 20.0
"""Source: our own bar: a million rows while one fetches a coffee, on one core of a small machine."""
PEAK_MB_MAX = 100.0
"""Source: our own bar: below what the interpreter with numpy takes anyway."""
COLUMNS = (
    "request_id", "call_type", "api_key", "spend", "total_tokens", "prompt_tokens", "completion_tokens", "startTime",
    "endTime", "model", "api_base", "user", "cache_hit", "team_id", "status", "metadata",
)  # fmt: skip
_START_S = 1_790_812_800  # 2026-10-01T00:00Z


def row(number: int, *, metadata: str) -> tuple[str | float | int, ...]:
    """Return one request; its tokens follow from its number."""
    at = datetime.fromtimestamp(_START_S + number * 2.5, UTC)
    prompt, answer = 200 + number % 1800, 20 + number % 380
    text = f"{at:%Y-%m-%d %H:%M:%S}.{number % 1000:03d}"
    return (
        f"chatcmpl-{number:032x}", "acompletion", "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        prompt * 2.5e-7 + answer * 1e-6, prompt + answer, prompt, answer, text, text, f"gpt-{number % 7}",
        "https://api.openai.com/v1", f"user-{number % 50}", "False", "team-1", "success", metadata,
    )  # fmt: skip


def make(path: Path, rows: int, shape: str, metadata: str) -> None:
    """Write the file."""
    with path.open("w") as file:
        if shape == "csv":
            file.write(",".join(COLUMNS) + "\n")
            quoted = '"' + metadata.replace('"', '""') + '"'
            for number in range(rows):
                file.write(",".join(map(str, row(number, metadata=quoted))) + "\n")
            return
        between = "\n" if shape == "jsonl" else ",\n"
        file.write("" if shape == "jsonl" else "[")
        for number in range(rows):
            file.write(between if number else "")
            values = row(number, metadata="")[:-1]
            file.write(
                json.dumps({**dict(zip(COLUMNS, values, strict=False)), "metadata": json.loads(metadata)})
            )
        file.write("\n" if shape == "jsonl" else "]\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file (default 1,000,000)")
    parser.add_argument("--format", choices=("csv", "jsonl", "json"), default="csv", help="shape of the file")
    parser.add_argument("--metadata", action="store_true", help="give each row metadata, with cached tokens")
    args = parser.parse_args()
    metadata = "{}"
    if args.metadata:
        details = {"prompt_tokens_details": {"cached_tokens": 128}, "note": "x" * 300}
        metadata = json.dumps({"additional_usage_values": details, "user_api_key_alias": "a team's key"})
    with tempfile.TemporaryDirectory(prefix="usage-import-") as folder:
        path = Path(folder) / f"spend.{args.format}"
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(path, args.rows, args.format, metadata)
        )
        maker.start()
        maker.join()
        return measure(path, args.rows)


def measure(path: Path, rows: int) -> int:
    """Read the file, print the figures and return the exit code."""
    from freehold.ledger.files.usage_files import read_usage  # noqa: PLC0415 - not in the process that makes the file

    before_s = time.process_time()
    found = read_usage(path, now_s=_START_S + rows * 2.5 + 86_400)
    cpu_s = time.process_time() - before_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB, {found.format}")
    print(f"CPU {cpu_s:.1f} s (bar {CPU_S_MAX:g}), peak memory {peak_mb:.0f} MB (bar {PEAK_MB_MAX:g})")
    wanted = sum(200 + number % 1800 + 20 + number % 380 for number in range(rows))
    sums = (
        sum(hour.input_tokens + hour.output_tokens for hour in found.traffic.hours) if found.traffic else -1
    )
    if sums != wanted:
        print(f"the sums are wrong: {sums:,} tokens instead of {wanted:,}", file=sys.stderr)
        return 3
    return 0 if cpu_s <= CPU_S_MAX and peak_mb <= PEAK_MB_MAX else 3


if __name__ == "__main__":
    sys.exit(main())
