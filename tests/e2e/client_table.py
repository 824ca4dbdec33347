"""What works through the gateway with each engine: a row is a test of the client suite, a cell what a client gets.

An engine that DIFFERENCES does not name in a row passes its test; one that it names refuses in just these words (`Refused`), or
passes another test instead (`Instead`). Nothing is ever skipped. docs/engines.md shows `matrix()`.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openai
import pytest

ENGINES = ("llama-cpp", "vllm", "transformers")
ROWS: list[str] = []
"""In the order of the suite."""
_FIELDS = {"message", "type", "param", "code"}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The first request of the test is answered 400 in the shape of its API."""

    told: str = "refused"
    code: str = "not_supported_by_engine"
    says: str = "this engine does not know"
    anthropic: bool = False

    def check(self, error: openai.APIStatusError) -> None:
        assert (error.status_code, error.type) == (400, "invalid_request_error"), error
        assert re.search(self.says, error.message), error
        assert isinstance(error.body, dict)
        if self.anthropic:
            assert set(error.body) == {"type", "message"}
        else:
            assert (set(error.body), error.code) == (_FIELDS, self.code), error


@dataclass(frozen=True, kw_only=True)
class Instead:
    """It is answered, and otherwise: the suite's method of that name holds it to that."""

    told: str
    method: str


Test = Callable[..., None]


def row(words: str) -> Callable[[Test], Test]:
    """Make a test of the suite a row of the matrix."""

    def decorate(test: Test) -> Test:
        ROWS.append(words)

        @functools.wraps(test)
        def run(self: Any, *args: Any, **fixtures: Any) -> None:
            other = DIFFERENCES[self.engine].get(words)
            if isinstance(other, Instead):
                getattr(self, other.method)(*args, **fixtures)
            elif other is None:
                test(self, *args, **fixtures)
            else:
                with pytest.raises(openai.APIStatusError) as refused:
                    test(self, *args, **fixtures)
                other.check(refused.value)

        return run

    return decorate


RESPONSES = "`/v1/responses`"
MESSAGES = "`/v1/messages`, whole and streamed"
SCHEMA = "an answer in the shape of a JSON schema"
SCHEMA_STREAM = "the same, streamed"
SCHEMA_RESPONSES = "the same on `/v1/responses`"
SCHEMA_MESSAGES = "the same on `/v1/messages`"
TOOL = "a tool that must be called"
TOOL_STREAM = "the same, streamed in pieces"
TOOL_NAMED = "a tool that is named"
TOOL_ONE = "one call where `parallel_tool_calls` is false"
SEED = "`seed`: the same text again"
BIAS = "`logit_bias`"
CODEX = "`/v1/responses` as codex sends it (`store: false`, tools, streamed)"
CLAUDE_CODE = "`/v1/messages` as Claude Code sends it (tools, streamed)"
COUNT_CHAT = "`/v1/chat/completions/input_tokens`"
COUNT_MESSAGES = "`/v1/messages/count_tokens`"
LOGPROBS = "log probabilities"
STOP = "stop texts, whole and streamed"
CHOICES = "several choices (`n`), whole and streamed"
GREEDY = "several choices at temperature 0"
EMBEDDINGS = "embeddings"
AT_ONCE = "several streams at once, worked on together"
RANGE = "a sampling value out of range: 400"

_NO_PATH = r"does not serve /v1/"
_NO_TRANSFORMERS = Refused()
DIFFERENCES: dict[str, dict[str, Refused | Instead]] = {
    "llama-cpp": {
        SCHEMA_MESSAGES: Refused(says="output_config", anthropic=True),
        RANGE: Instead(told="answered: it takes every number", method="any_number_is_taken"),
    },
    "vllm": {COUNT_CHAT: Refused(says=_NO_PATH), GREEDY: Refused(says="temperature above 0")},
    "transformers": {
        **dict.fromkeys((RESPONSES, CODEX, SCHEMA_RESPONSES), Refused(says=_NO_PATH)),
        **dict.fromkeys((MESSAGES, CLAUDE_CODE, SCHEMA_MESSAGES), Refused(says=_NO_PATH, anthropic=True)),
        COUNT_CHAT: Refused(says=_NO_PATH),
        COUNT_MESSAGES: Refused(says=_NO_PATH, anthropic=True),
        EMBEDDINGS: Refused(says=_NO_PATH),
        **dict.fromkeys(
            (
                SCHEMA,
                SCHEMA_STREAM,
                TOOL,
                TOOL_STREAM,
                TOOL_NAMED,
                TOOL_ONE,
                LOGPROBS,
                BIAS,
                STOP,
                CHOICES,
                GREEDY,
            ),
            _NO_TRANSFORMERS,
        ),
        AT_ONCE: Instead(told="one after the other", method="streams_wait_for_each_other"),
    },
}


def matrix() -> str:
    """Return the table as docs/engines.md has it."""
    lines = ["| through the gateway | " + " | ".join(ENGINES) + " |", "|---" * (len(ENGINES) + 1) + "|"]
    for words in ROWS:
        cells = [DIFFERENCES[engine].get(words) for engine in ENGINES]
        lines.append(f"| {words} | " + " | ".join(cell.told if cell else "yes" for cell in cells) + " |")
    return "\n".join(lines) + "\n"
