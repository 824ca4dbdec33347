"""What the gateway reads of a request's JSON body, and the few keys that it may change in it.

Only the fields that decide where a request goes are decoded; everything else, prompts above all, stays bytes and is
passed on as it came. Pure.
"""

import codecs
import math
import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from struct import Struct

import msgspec

from freehold.core.events import CACHE_KEYS, PRIVATE_KEYS
from freehold.gateway.wire.bounds import LOOK_BYTES, too_complex
from freehold.gateway.wire.errors import Rejection, invalid
from freehold.gateway.wire.request import Request
from freehold.gateway.wire.request_tokens import ANSWER_TOKENS

# A larger number is not a real limit, of one answer or of all; a worker's 20,000 connections times 64 workers times this is
# less than 2^63, so that sums fit the shared counters.
_TOKENS_MOST = 10**12


_NOTHING = msgspec.Raw(b"")
USAGE_OPTION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where a stream's usage has to be asked for. Source: OpenAI API reference, `stream_options`."""


_Number = int | float | None


class _Object(msgspec.Struct, gc=False):
    """Any object: what is in it is skipped."""


_Objects = list[_Object] | None
_SHAPES = {
    "tools": msgspec.json.Decoder(_Objects),
    "functions": msgspec.json.Decoder(_Objects),
    "tool_choice": msgspec.json.Decoder(str | _Object | None),
    "response_format": msgspec.json.Decoder(str | _Object | None),
}
"""What kinds of values these keys have. Source: OpenAI API reference, chat completions, and of audio and images the text that
`response_format` is there. llama.cpp answers 500 to `tools: [5]`, and 200 to `tool_choice: 5` as if it were not there (measured)."""


class BodyFields(msgspec.Struct, gc=False):
    """The fields of a body that the gateway acts on, or whose type it checks; all others are skipped without being built.

    It is the table of types, so that each engine's clients get the same words for a wrong one. Source: OpenAI API
    reference, chat completions and completions; llama.cpp's and vLLM's names of samplers.
    """

    model: str | None = None
    stream: bool | None = None
    max_tokens: _Number = None
    max_completion_tokens: _Number = None
    max_output_tokens: _Number = None
    n_predict: _Number = None
    n: _Number = None
    best_of: _Number = None
    temperature: _Number = None
    top_p: _Number = None
    top_k: _Number = None
    min_p: _Number = None
    seed: _Number = None
    frequency_penalty: _Number = None
    presence_penalty: _Number = None
    repeat_penalty: _Number = None
    repetition_penalty: _Number = None
    echo: bool | None = None
    ignore_eos: bool | None = None
    parallel_tool_calls: bool | None = None
    stop: str | list[str] | None = None
    logit_bias: _Object | list[msgspec.Raw] | None = None
    prompt: msgspec.Raw = _NOTHING
    stream_options: msgspec.Raw = _NOTHING
    priority: msgspec.Raw = _NOTHING
    kv_transfer_params: msgspec.Raw = _NOTHING
    chat_template: msgspec.Raw = _NOTHING
    request_id: msgspec.Raw = _NOTHING
    rid: msgspec.Raw = _NOTHING
    id_slot: msgspec.Raw = _NOTHING
    bootstrap_host: msgspec.Raw = _NOTHING
    bootstrap_port: msgspec.Raw = _NOTHING
    bootstrap_room: msgspec.Raw = _NOTHING
    messages: msgspec.Raw = _NOTHING
    conversation: msgspec.Raw = msgspec.field(default=_NOTHING, name="input")
    tool_choice: msgspec.Raw = _NOTHING
    previous_response_id: msgspec.Raw = _NOTHING
    # The names of `constraint_limits.COUNTS`, then of CONSTRAINTS.
    repeat_last_n: _Number = None
    dry_penalty_last_n: _Number = None
    n_probs: _Number = None
    top_logprobs: _Number = None
    logprobs: bool | _Number = None
    grammar: msgspec.Raw = _NOTHING
    regex: msgspec.Raw = _NOTHING
    ebnf: msgspec.Raw = _NOTHING
    guided_grammar: msgspec.Raw = _NOTHING
    guided_regex: msgspec.Raw = _NOTHING
    guided_json: msgspec.Raw = _NOTHING
    response_format: msgspec.Raw = _NOTHING
    json_schema: msgspec.Raw = _NOTHING
    text: msgspec.Raw = _NOTHING
    output_config: msgspec.Raw = _NOTHING
    structured_outputs: msgspec.Raw = _NOTHING
    structural_tag: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    functions: msgspec.Raw = _NOTHING
    cache_salt: msgspec.Raw = _NOTHING
    cache_prompt: msgspec.Raw = _NOTHING

    @property
    def one_answer(self) -> bool:
        """Return whether it asks for one answer to one prompt, which is surely not empty."""
        return self.choices == 1 and (not self.prompt or _is_one(self.prompt))

    def is_usual(self) -> bool:
        """Return whether it is a conversation with a message and without any of PRIVATE_KEYS, CONSTRAINTS and COUNTS, as most are.

        Written out, since every request passes here.
        """
        said = self.messages
        return (
            self.priority is self.kv_transfer_params is self.chat_template is self.request_id is self.rid is self.id_slot
            is self.bootstrap_host is self.bootstrap_port is self.bootstrap_room
            is self.grammar is self.regex is self.ebnf is self.guided_grammar is self.guided_regex is self.guided_json
            is self.response_format is self.json_schema is self.text is self.output_config is self.structured_outputs
            is self.structural_tag is self.tools is self.functions is self.tool_choice
            is self.conversation is self.previous_response_id is _NOTHING
            and self.repeat_last_n is self.dry_penalty_last_n is self.n_probs is self.top_logprobs is self.logprobs is None
            and len(said) > 1 and _first_two(said) == _LIST_OF_OBJECTS
        )  # fmt: skip

    @property
    def answer_tokens(self) -> int:
        """Return the most tokens that all answers may have together; 0: one answer, without a limit.

        Which of several limits holds is the engine's decision: here it is the largest.
        """
        limit = self.max_tokens
        more = self.max_completion_tokens or self.max_output_tokens or self.n_predict
        if limit is more is None and self.max_completion_tokens is self.max_output_tokens is None:
            limit = 0
        elif more or type(limit) is not int or not 0 <= limit <= _TOKENS_MOST:
            limits = (limit, self.max_completion_tokens, self.max_output_tokens, self.n_predict)
            limit = max(map(_number, limits))
        if self.n is None and self.best_of is None and not self.prompt:
            return limit
        answers = self.choices * _prompts(self.prompt)
        return min(_TOKENS_MOST, (limit or ANSWER_TOKENS) * answers) if answers > 1 else limit

    def refuse_private(self, allowed: Collection[str], data: bytes) -> Rejection | None:
        """Return the 400 for a body (`data`) with one of PRIVATE_KEYS that is not allowed, or None.

        Null means nothing anywhere, unless the key stands twice: another parser could take the first.
        """
        there = [name for name in PRIVATE_KEYS if getattr(self, name)]
        if not there:
            return None
        found = [name for name in there if name not in allowed and bytes(getattr(self, name)) != b"null"]
        if not found:
            return _ambiguous(data, there[0])
        message = f"{found[0]!r} is the engine's own. The operator can let it pass: `allow_keys: [{found[0]}]` in the model of freehold.yaml."
        return invalid(message, param=found[0], code="private_key")

    @property
    def choices(self) -> int:
        """Return how many answers a prompt has."""
        return max(1, _number(self.n), _number(self.best_of))


def _number(value: _Number) -> int:
    """Return a number rounded up, from 0 to `_TOKENS_MOST`; 0 for None."""
    return math.ceil(min(max(0, value or 0), _TOKENS_MOST))


def _prompts(prompt: msgspec.Raw) -> int:
    """Return how many prompts a `prompt` is: one text, one list of tokens, or a list of either."""
    if not prompt or memoryview(prompt)[0] != _BRACKET:
        return 1
    data = bytes(prompt)[1:].lstrip()
    if data[:1].isdigit() and b"[" not in data and b"{" not in data:
        return 1  # tokens, or tokens and texts, which llama.cpp takes for one prompt
    return len(_LIST_DECODER.decode(prompt)) or 1


def _is_one(prompt: msgspec.Raw) -> bool:
    """Return whether a `prompt` is one text or list of tokens that has something in it, in the forms that clients send."""
    if memoryview(prompt)[0] == _BRACKET:
        data = bytes(prompt)[1:].lstrip()
        return _prompts(prompt) == 1 and (data[:1].isdigit() or (data[:1] == b'"' != data[1:2]))
    return memoryview(prompt)[0] == _QUOTE and memoryview(prompt).nbytes > len('""')


_SHOWN = 80  # Characters of a key in an error.
_PIECE_BYTES = 256 * 1024  # Checked at once: what its text takes is not noticed.
_BLANKS = b" \t\r\n"
_DECODER = msgspec.json.Decoder(BodyFields)
_RAW_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BRACKET, _QUOTE = ord("["), ord('"')
_first_two = Struct("2s").unpack_from
_LIST_OF_OBJECTS = (b"[{",)
_LIST_DECODER = msgspec.json.Decoder(list[msgspec.Raw])
_OPTIONS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_TRUE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"null")


def read_body(data: bytes) -> BodyFields | Rejection:
    """Return the decoded fields, or the 400 that names what is wrong with the body."""
    rejection = too_complex(data) if len(data) > LOOK_BYTES else None
    if rejection is not None:
        return rejection
    try:
        if not data.isascii():
            _check_utf8(data)  # fields that are skipped are not checked by the decoder
        asked = _DECODER.decode(data)
    except msgspec.ValidationError as exc:
        return _wrong_type(str(exc))
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return invalid(f"The body is not valid JSON: {exc}.", code="invalid_json")
    except RecursionError:
        return too_deep()
    if not asked.model:
        return invalid(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    return _two_models(data) or asked


def refuse_shapes(fields: BodyFields) -> Rejection | None:
    """Return the 400 for tools, a choice of them or a format that is not of the kind that every API has, or None."""
    for name, decoder in _SHAPES.items():
        raw = getattr(fields, name)
        try:
            if raw:
                decoder.decode(raw)
        except msgspec.ValidationError as exc:
            inside = str(exc).partition(" - at `$")
            return _wrong_type(f"{inside[0]} - at `$.{name}{inside[2] or '`'}")
        except RecursionError:
            return too_deep()
    return None


def _check_utf8(data: bytes) -> None:
    """Raise UnicodeDecodeError for bytes that are not UTF-8 (RFC 8259 8.1); piece by piece, since text takes up to four times its bytes."""
    decode, view = codecs.getincrementaldecoder("utf-8")().decode, memoryview(data)
    for at in range(0, len(data), _PIECE_BYTES):
        decode(view[at : at + _PIECE_BYTES], at + _PIECE_BYTES >= len(data))


def _two_models(data: bytes) -> Rejection | None:
    """Return the 400 for a body in which another parser could find another model, or None.

    Of two keys some take the first, and Go's own decoder takes `Model` for `model`. Such a body has the word twice, or
    letters of it as escapes; whether keys stand twice shows when it is written anew with each key once.
    """
    # Without its backslash first: in a text of backslashes that is found twenty times as fast. By `find`, which takes half as
    # long as `in`: that first tries whether what is sought is a number.
    escapes = data.find(b"u00") >= 0 and (
        (b"u006" in data and b"\\u006" in data) or (b"u004" in data and b"\\u004" in data)
    )
    if not escapes and data.lower().count(b'"model"') == 1:
        return None
    return _ambiguous(data, "model")


def _ambiguous(data: bytes, name: str) -> Rejection | None:
    """Return the 400 for a body in which a key stands twice, or with escapes, or `Model` for `model`; `name` is the key that matters."""
    try:
        keys = _RAW_DECODER.decode(data)
    except RecursionError:
        return too_deep()
    other = [key for key in keys if key != "model" and key.lower() == "model"]
    again = msgspec.json.encode(keys)
    if other or len(again.translate(None, _BLANKS)) != len(data.translate(None, _BLANKS)):
        message = f"Name each key of the body once, {name!r} in small letters and without escapes."
        return invalid(message, param=name, code="ambiguous_body")
    return None


def too_deep() -> Rejection:
    """Return the 400 for a body nested deeper than the decoder goes."""
    return invalid("The body is not valid JSON: it is nested too deeply.", code="invalid_json")


_JSON_WORDS = {
    "str": "a string", "bool": "a boolean", "int": "a number", "float": "a number", "array": "an array",
    "object": "an object", "null": "null",
}  # fmt: skip
_TYPES = re.compile(r"Expected `(.+?)`, got `(.+?)`")


def _wrong_type(message: str) -> Rejection:
    # msgspec reports, for example: Expected `bool | null`, got `str` - at `$.stream`
    param = message.rpartition("$.")[2].rstrip("`") if "$." in message else None
    subject, types = repr(param) if param else "The body", _TYPES.match(message)
    if types is None:
        return invalid(f"{subject} is a number outside any range.", param=param, code="invalid_type")
    expected = dict.fromkeys(_JSON_WORDS[kind] for kind in types[1].split(" | ") if kind != "null")
    text = f"{subject} must be {' or '.join(expected)}, not {_JSON_WORDS[types[2]]}."
    return invalid(text, param=param, code="invalid_type")


def rewrite(
    data: bytes, changes: Mapping[str, msgspec.Raw], *, without: AbstractSet[str] = frozenset()
) -> bytes:
    """Return a body (valid JSON object, as `read_body` accepted it) `without` some top-level keys, and others set to `changes`.

    All other values keep their bytes. Raises RecursionError for one nested just as deep as `read_body` still accepted.
    """
    kept = _RAW_DECODER.decode(data)
    for name in without:
        kept.pop(name, None)
    return msgspec.json.encode(kept | dict(changes))


def refuse_adapter_keys(data: bytes, keys: AbstractSet[str]) -> Rejection | None:
    """Return the 400 for a body (as `read_body` accepted it) with a key by which its engine takes adapters, or None.

    Access to an adapter is decided by its name: a key that gives its number would bypass that.
    """
    if b"\\u" not in data and not any(name.encode() in data for name in keys):
        return None
    try:
        found = keys & _RAW_DECODER.decode(data).keys()
    except RecursionError:
        return too_deep()
    if not found:
        return None
    name = min(found)
    message = f"This model's adapters are asked for by their names in 'model', not by '{name}'."
    return invalid(message, param=name, code="adapter_by_name")


def refuse_unknown(data: bytes, known: frozenset[str]) -> Rejection | None:
    """Return the 400 for a body (as `read_body` accepted it) with a key that is not `known`, or None."""
    try:
        keys = _RAW_DECODER.decode(data)
    except RecursionError:
        return too_deep()
    if known.issuperset(keys):
        return None
    name = next(key for key in keys if key not in known)[:_SHOWN]
    message = f"Freehold knows no parameter {name!r} of this model's engine. The operator can let it pass: `allow_keys` in the model of freehold.yaml."
    return invalid(message, param=name, code="unknown_parameter")


def raw_keys(text: str) -> dict[str, msgspec.Raw]:
    """Return the keys of a JSON object, each with its value's bytes; raises msgspec.DecodeError for anything else."""
    return _RAW_DECODER.decode(text)


def as_stream(data: bytes, *, with_usage: bool) -> bytes:
    """Return a body that asks for a stream, so that the engine notices when its client leaves.

    `with_usage` asks for the usage chunk too (chat and text completions; the other paths send it anyway).
    """
    changes = {"stream": _TRUE}
    if with_usage:
        changes["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
    return rewrite(data, changes)


def ask_usage(request: Request, options: msgspec.Raw) -> None:
    """Make a stream's request ask for the usage chunk, where it has to be asked for and the caller did not."""
    if request.path in USAGE_OPTION_PATHS:
        body = asking_usage(request.body, options)
        if body is not None:
            request.body = body
            request.hides_usage = True


def asking_usage(data: bytes, options: msgspec.Raw) -> bytes | None:
    """Return a stream request's body (as `read_body` accepted it) that asks for the usage chunk.

    `options` is its `stream_options`. None: it asks already, or its options are nothing that an engine could take.
    """
    if not options:
        at = data.index(b"{") + 1
        return b'%b"stream_options":{"include_usage":true},%b' % (data[:at], data[at:])
    try:
        fields = _OPTIONS_DECODER.decode(options) or {}
        # The other values stay bytes: JSON numbers that Python cannot hold, 1e999, do not prevent metering.
        if msgspec.json.decode(fields.get("include_usage", _NULL)):
            return None
        # Usage with every chunk hangs on `include_usage`: without that, the caller had not got it.
        fields.pop("continuous_usage_stats", None)
        options = msgspec.Raw(msgspec.json.encode(fields | {"include_usage": _TRUE}))
        return rewrite(data, {"stream_options": options})
    except (msgspec.DecodeError, RecursionError):
        return None


def in_cache(data: bytes, members: bytes, *, replaces: bool) -> bytes:
    """Return a body that begins with these members, each with a comma; `replaces`: it has some of CACHE_KEYS, which go."""
    if replaces:
        data = rewrite(data, {}, without=CACHE_KEYS)
    at = data.index(b"{") + 1
    return b"%b%b%b" % (data[:at], members, data[at:])


def with_model(data: bytes, model: str) -> bytes:
    """Return a body that names the model as the engine knows it."""
    return rewrite(data, {"model": msgspec.Raw(msgspec.json.encode(model))})
