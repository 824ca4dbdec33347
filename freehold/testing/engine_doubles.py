"""Doubles of SGLang, TensorRT-LLM and vLLM: real HTTP children that take those programs' flags and speak their pages and words.

`python -m freehold.testing.engine_doubles ENGINE [fake engine's flags] -- [the program's own words]`. A double is no
proof that the program does so: it is made from what the adapters' files name as their source, by the same hands. What it
proves is that Freehold starts, asks, reads, explains and ends a program that does. Flags that the recorded list has not
are refused as the program refuses them; vLLM's has of its words no more than those of the fake engine, for tests of what is
around an engine and needs no GPU. The answers' text, the pace and the faults are the fake engine's.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from freehold.engines import sglang, tensorrt_llm
from freehold.engines.shared.flag_list import load_flags
from freehold.testing import fake_answers as answers
from freehold.testing.fake_engine import serve
from freehold.testing.fake_http import Connection, FakeRequest
from freehold.testing.fake_server import FakeServer
from freehold.testing.fake_settings import FakeSettings, add_flags, from_flags
from freehold.testing.flag_parser import flag_parser

_SGLANG_SLOTS = 48
"""What the double says it takes at once when no option says so. Source: made up, unlike any default."""
_KV_TOKENS = 65_536
"""The same, tokens of its KV cache."""
_STATS_KEPT = 1000
"""Iterations that nobody has asked for yet. Source: TensorRT-LLM, iter_stats_max_iterations' default."""


class SglangDouble(FakeServer):
    """SGLang 0.5.23 as its source describes it."""

    def __init__(self, settings: FakeSettings, flags: argparse.Namespace) -> None:
        super().__init__(settings, model=flags.served_model_name)
        self._flags = flags
        self._key = json.loads(Path(flags.config).read_text())["api-key"] if flags.config else ""
        self.routes |= {
            ("GET", "/metrics"): self._counters if flags.enable_metrics else self._nothing,
            ("GET", "/health_generate"): self.routes["GET", "/health"],
            ("GET", "/server_info"): self._info,
            ("GET", "/v1/models"): self._cards,
        }

    async def handle(self, connection: Connection, request: FakeRequest) -> None:
        """Answer one request, as its `add_api_key_middleware` lets it through."""
        is_open = request.target.startswith(("/health", "/metrics")) or not self._key
        if is_open or ("Authorization", f"Bearer {self._key}") in _titled(request.headers):
            await super().handle(connection, request)
        else:
            connection.respond(401, {"error": "Unauthorized"})

    def error_body(self, status: int, message: str, *, kind: str) -> dict[str, Any]:
        """Return SGLang's ErrorResponse: the fields at the top."""
        return {"object": "error", "message": message, "type": kind, "param": None, "code": status}

    def too_long(self, prompt: int, limit: int) -> dict[str, Any]:
        """Return the words of TokenizerManager._validate_one_request."""
        words = f"The input ({prompt} tokens) is longer than the model's context length ({limit} tokens)."
        return self.error_body(400, words, kind="BadRequestError")

    async def _nothing(self, connection: Connection, _request: FakeRequest) -> None:
        connection.respond(404, {"detail": "Not Found"})

    async def _counters(self, connection: Connection, _request: FakeRequest) -> None:
        """Answer the Prometheus page: a labelled counter appears with its first event, as prometheus_client does it."""
        counts, labels = self.counts, f'engine_type="unified",model_name="{self.model}",tp_rank="0"'
        rows = [
            (f'sglang:num_running_reqs{{{labels},priority=""}}', counts.running),
            (f'sglang:num_running_reqs{{{labels},priority="1"}}', counts.running),
            (f'sglang:num_queue_reqs{{{labels},priority=""}}', counts.waiting),
        ]
        if counts.finished:
            rows.append((f"sglang:generation_tokens_total{{{labels}}}", counts.tokens_of_finished))
            rows.append((f"sglang:prompt_tokens_total{{{labels}}}", counts.prompt_tokens))
        if counts.decode_steps:
            rows.append((f'sglang:realtime_tokens_total{{{labels},mode="decode"}}', counts.decode_steps))
            rows.append(
                (f'sglang:realtime_tokens_total{{{labels},mode="prefill_compute"}}', counts.prompt_tokens)
            )
        connection.respond(200, "".join(f"{name} {float(value)}\n" for name, value in rows))

    async def _info(self, connection: Connection, _request: FakeRequest) -> None:
        state = {"effective_max_running_requests_per_dp": self._flags.max_running_requests or _SGLANG_SLOTS}
        info = {
            "max_total_num_tokens": self._flags.max_total_tokens or _KV_TOKENS,
            "internal_states": [state],
        }
        connection.respond(200, {**info, "version": sglang.FLAGS.version})

    async def _cards(self, connection: Connection, _request: FakeRequest) -> None:
        card = {**answers.models(self.model)["data"][0], "max_model_len": self.settings.context_tokens}
        connection.respond(200, {"object": "list", "data": [card]})


def _titled(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.title(), value) for name, value in headers]


class TensorrtLlmDouble(FakeServer):
    """`trtllm-serve` as its source describes it; `gauges`: with the Prometheus page of newer versions."""

    def __init__(self, settings: FakeSettings, *, folder: Path, config: dict[str, Any], gauges: bool) -> None:
        super().__init__(settings, model=folder.name)
        self._told_steps = 0
        self._gauges = gauges
        self._counts_iterations = bool(config.get("enable_iter_perf_stats"))
        self.routes |= {
            ("GET", "/metrics"): self._iterations,
            ("GET", "/health_generate"): self.routes["GET", "/health"],
            ("GET", "/version"): self._version,
        }
        if config.get("return_perf_metrics"):
            self.routes["GET", "/prometheus/metrics"] = self._prometheus

    def error_body(self, status: int, message: str, *, kind: str) -> dict[str, Any]:
        """Return its ErrorResponse: the fields at the top."""
        return {"object": "error", "message": message, "type": kind, "param": None, "code": status}

    def too_long(self, prompt: int, limit: int) -> dict[str, Any]:
        """Return the words of its LLM API."""
        words = f"The sum of prompt length ({prompt}) and query length (0) should not exceed max_seq_len ({limit})"
        return self.error_body(400, words, kind="BadRequestError")

    async def _version(self, connection: Connection, _request: FakeRequest) -> None:
        connection.respond(200, {"version": tensorrt_llm.FLAGS.version})

    async def _iterations(self, connection: Connection, _request: FakeRequest) -> None:
        """Answer the iterations since somebody last asked, each once."""
        steps = self.counts.decode_steps
        first = max(self._told_steps, steps - _STATS_KEPT)
        self._told_steps = steps
        rows = [
            {
                "iter": step + 1,
                "numActiveRequests": self.counts.running,
                "numQueuedRequests": self.counts.waiting,
            }
            for step in range(first, steps)
        ]
        connection.respond(200, rows if self._counts_iterations and not self._gauges else [])

    async def _prometheus(self, connection: Connection, _request: FakeRequest) -> None:
        counts, labels = self.counts, 'engine_type="undefined",model_name="undefined"'
        rows = [(f'trtllm_request_success_total{{{labels},finished_reason="length"}}', counts.finished)]
        if self._gauges:
            rows += [
                (f"trtllm_num_requests_running{{{labels}}}", counts.running),
                (f"trtllm_num_requests_waiting{{{labels}}}", counts.waiting),
                (f"trtllm_generation_tokens_total{{{labels}}}", counts.tokens_of_finished),
                (f"trtllm_prompt_tokens_total{{{labels}}}", counts.prompt_tokens),
                (f"trtllm_kv_cache_gen_alloc_blocks_total{{{labels}}}", counts.decode_steps // 32),
            ]
        connection.respond(200, "".join(f"{name} {float(value)}\n" for name, value in rows))


def _sglang(settings: FakeSettings, words: list[str]) -> tuple[FakeServer, str, int]:
    flags = flag_parser(sglang.FLAGS).parse_args(words[words[:1] == ["serve"] :])
    return SglangDouble(settings, flags), flags.host, flags.port


def _tensorrt_llm(settings: FakeSettings, words: list[str], *, gauges: bool) -> tuple[FakeServer, str, int]:
    parser = flag_parser(tensorrt_llm.FLAGS)
    parser.add_argument("model", type=Path)
    parser.error = _as_click_says  # type: ignore[method-assign]
    flags = parser.parse_args(words[words[:1] == ["serve"] :])
    file = flags.extra_llm_api_options
    config = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    if not flags.model.is_dir():
        sys.exit(f"OSError: {flags.model} is not a local folder and is not a valid model identifier")
    double = TensorrtLlmDouble(settings, folder=flags.model, config=config, gauges=gauges)
    return double, flags.host, flags.port


def _vllm(settings: FakeSettings, words: list[str]) -> tuple[FakeServer, str, int]:
    parser = flag_parser(load_flags("vllm-0.32.0.json"))
    parser.add_argument("model")
    flags = parser.parse_args(words[words[:1] == ["serve"] :])
    return FakeServer(settings, model=flags.served_model_name[0]), flags.uds or flags.host, flags.port


def _as_click_says(message: str) -> NoReturn:
    unknown = message.removeprefix("unrecognized arguments: ")
    words = message if unknown == message else f"No such option: {unknown}"
    sys.stderr.write(f"Usage: trtllm-serve serve [OPTIONS] MODEL\n\nError: {words}\n")
    sys.exit(2)


def main(argv: list[str]) -> int:
    """Serve as the engine that the first word names, until SIGTERM or SIGINT."""
    at = argv.index("--")
    parser = argparse.ArgumentParser(prog="engine doubles", allow_abbrev=False)
    parser.add_argument("engine", choices=("sglang", "tensorrt-llm", "vllm"))
    parser.add_argument("--gauges", action="store_true")
    add_flags(parser)
    flags = parser.parse_args(argv[:at])
    settings, words = from_flags(flags), argv[at + 1 :]
    if flags.engine == "sglang":
        server, host, port = _sglang(settings, words)
    elif flags.engine == "vllm":
        server, host, port = _vllm(settings, words)
    else:
        server, host, port = _tensorrt_llm(settings, words, gauges=flags.gauges)
    asyncio.run(serve(server, host, port=port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
