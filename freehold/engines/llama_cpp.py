"""llama.cpp: GGUF weights on CPU or GPU, through the `xllamacpp` wheel or an existing `llama-server` program.

Both are started with llama-server's own flags, so there is one list of flags: `programs/xllamacpp_server` reads the same
ones. This file is words and numbers only; every rule in it was made from what the real server printed or answered.

Measured with xllamacpp 2026.10 and SmolLM2-135M on 2 cores (docs/engines.md):
- a streamed request stops 2 decodes after its client left, a plain one runs to its end (500 of 500 decodes), hence
  `stream_to_abort`;
- `tokens_predicted_total` moves only when a request ends, `n_decode_total` with every step: progress is the latter;
- each open connection holds one HTTP thread. With the server's own default (about n_parallel + 6), eight waiting
  requests leave none to answer `/metrics`, so it is started with many more.
"""

import re
import sys
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from freehold.engines._llama_cpp_options import (
    CELL_TOKENS,
    DEFAULTS,
    OPTIONS,
    complete,
    conflicts,
    sleeps,
    to_words,
)
from freehold.engines.base import (
    ALL_PATHS,
    COUNT_PATHS,
    FOLDER,
    TRANSCRIPTIONS,
    Adapter,
    ApiError,
    Command,
    ConstraintLimits,
    Continues,
    Engine,
    ForcesTools,
    Format,
    HttpCheck,
    Metric,
    Options,
    Placement,
    PrefixCache,
    Unfinished,
    completion_check,
)
from freehold.engines.shared.api_errors import context_error, error_fields, invalid_request
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.exit_rules import explain

_DATA = load_engine_data("llama_cpp")


def _command(placement: Placement) -> Command:
    """Return the wheel's child or the user's llama-server, with the same flags; weights are required."""
    assert placement.weights is not None, "llama-cpp needs weights; the spec refuses a model without a source"
    options = complete(placement.options, placement.threads, sleeping=bool(placement.adapters))
    flags = ["--host", placement.socket or placement.host, "--port", str(placement.port)]
    flags += ["--model", str(placement.weights), "--alias", placement.model]
    links = {_link(place): str(adapter.path) for place, adapter in enumerate(placement.adapters)}
    if links:  # before the user's own: it numbers adapters as they come, and a request names them by number
        named = [f"{FOLDER}/{link}:0" for link in links]
        named += [str(options["lora_scaled"])] if "lora_scaled" in options else []
        options = {**options, "lora_scaled": ",".join(named)}
    flags += [*to_words(options), "--metrics", "--slots", "--no-webui"]
    return Command(argv=(*_program(options), *flags), env=_environment(placement), links=links)


def _link(place: int) -> str:
    """Return the name of a link to an adapter, whose own name may hold the marks that this flag is cut at."""
    return f"adapter-{place}.gguf"


def _ask_adapter(_model: str, place: int, _adapter: Adapter) -> Mapping[str, object]:
    return {"lora": [{"id": place, "scale": 1.0}]}


_HEEDS_ADAPTERS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
"""On others it drops `lora` without a word. Source: measured on 2026.10.11549."""


_HEEDS_SLOT = _HEEDS_ADAPTERS
"""On others it drops `id_slot` and `cache_prompt` as well: /v1/messages is rewritten from known keys (server-chat.cpp)."""


def _program(options: Options) -> tuple[str, ...]:
    binary = str(options.get("server_binary", ""))
    # -P: a file such as http.py in the working directory must not shadow the library (it did, once).
    return (binary,) if binary else (sys.executable, "-P", "-m", "freehold.engines.programs.xllamacpp_server")


def _environment(placement: Placement) -> dict[str, str]:
    return {
        # On an assertion llama.cpp runs gdb on itself if there is one: seconds, and pages that bury the cause.
        "GGML_NO_BACKTRACE": "1",
        # Its default lets every web page read answers. As a variable, so that older servers ignore it.
        "LLAMA_ARG_CORS_ORIGINS": f"http://{placement.host}:{placement.port}",
    }


class _NextToken(msgspec.Struct):
    n_decoded: float = 0.0


class _Slot(msgspec.Struct):
    is_processing: bool = False
    next_token: list[_NextToken] = []


_SLOTS = msgspec.json.Decoder(list[_Slot])


def _unfinished_tokens(body: bytes) -> float | None:
    try:
        slots = _SLOTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return sum(token.n_decoded for slot in slots if slot.is_processing for token in slot.next_token)


def _gpus(options: Options) -> int | None:
    """Return the GPUs that the options name; None: it spreads the model over whatever it sees, or computes without."""
    if options.get("n_gpu_layers") == 0 and "spec_draft_model" not in options:
        return 0
    if options.get("split_mode") == "none":
        return int(options.get("main_gpu", 0)) + 1  # `main_gpu` counts among those that it sees
    shares = str(options.get("tensor_split", ""))
    return len(re.split(r"[,/]", shares)) if shares else None


def _slots(options: Options) -> int:
    return int(options.get("n_parallel", DEFAULTS["n_parallel"]))


def _max_context_tokens(options: Options) -> int:
    """Return one slot's share as the server rounds it, or all of a unified cache; the weights' own context may be shorter."""
    cells = _round_up(int(options.get("n_ctx", DEFAULTS["n_ctx"])))
    return cells if complete(options, 1).get("kv_unified") else _round_up(cells // _slots(options))


def _round_up(tokens: int) -> int:
    return max(1, -(-tokens // CELL_TOKENS)) * CELL_TOKENS


def _ready_with(model: str, options: Options) -> HttpCheck:
    """Return a ranking or an embedding instead, where the model may be an encoder: these have no completions (measured)."""
    if not options.get("embeddings"):
        return completion_check(model)
    if options.get("pooling") == "rank":
        return HttpCheck(
            method="POST", path="/v1/rerank", body={"model": model, "query": "hi", "documents": ["hi"]}
        )
    # Not /v1/embeddings, which refuses weights that do not say how to pool.
    return HttpCheck(method="POST", path="/embeddings", body={"model": model, "content": "hi"})


_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] +")
"""Time and level before the server's log lines, such as `0.00.014.650 E `. Source: seen on the real server."""


def _too_long(fields: Mapping[str, object]) -> ApiError:
    limit, prompt = fields.get("n_ctx"), fields.get("n_prompt_tokens")
    if not isinstance(limit, int) or not isinstance(prompt, int):
        return context_error(str(fields.get("message")))
    return context_error(
        f"This model's maximum context length is {limit} tokens, but the request has {prompt} tokens. "
        "Shorten the request, or raise n_ctx (or lower n_parallel) in engine_options.",
        fields=fields,
    )


def _input_too_long(fields: Mapping[str, object]) -> ApiError:
    said = str(fields.get("message")).split(". ", maxsplit=1)[0]
    return context_error(
        f"{said}. Shorten the input, or raise n_ubatch (and n_batch) in engine_options.", param="input"
    )


def _refused(message: str) -> Callable[[Mapping[str, object]], ApiError]:
    return lambda _fields: invalid_request(message)


_FIELD = re.compile(
    r"(?:Field '(\w+)': )?(\[json\.exception\.type_error\.\d+\] )?(?:Error: )?(.*)", re.DOTALL
)
"""What the server says of a key's value, with the mark of its JSON library. Source: seen on the real server."""


def _bad_field(fields: Mapping[str, object]) -> ApiError:
    found = _FIELD.fullmatch(str(fields.get("message")))
    assert found is not None, "each part may be missing"
    param, wrong_type, said = found.groups()
    subject = repr(param) if param else "A field of the request"
    reason, code = (
        ("has the wrong type", "invalid_type") if wrong_type else ("cannot be used", "invalid_value")
    )
    return invalid_request(f"{subject} {reason}: {said or 'it cannot be read'}.", code=code, param=param)


_SCHEMA_ERROR = "JSON schema error at "


def _bad_schema(fields: Mapping[str, object]) -> ApiError:
    said = str(fields.get("message")).partition(_SCHEMA_ERROR)[2]
    message = f"The JSON schema cannot be used: at {said}"
    return invalid_request(message, code="invalid_json_schema", param="response_format")


def _no_picture(_fields: Mapping[str, object]) -> ApiError:
    message = "What image_url names could not be fetched. Send pictures as data: URIs."
    return invalid_request(message, code="invalid_image_url", param="messages")


def _loading(_fields: Mapping[str, object]) -> ApiError:
    return ApiError(
        status=503, message="The model is still loading.", type="service_unavailable", code="model_loading"
    )


# In order: what the `type` or the start of the `message` says, and the answer.
_TRANSLATIONS: tuple[tuple[str, str, Callable[[Mapping[str, object]], ApiError]], ...] = (
    ("exceed_context_size_error", "", _too_long),
    ("", "input is too large to process", _input_too_long),
    (
        "not_supported_error",
        "This server does not support embeddings",
        _refused(
            "This model is served without embeddings. Set `embeddings: true` in its engine_options in freehold.yaml."
        ),
    ),
    (
        "not_supported_error",
        "This server does not support reranking",
        _refused(
            "This model is served without reranking. Set `embeddings: true` and `pooling: rank` in its engine_options "
            "in freehold.yaml; the weights must be those of a reranker."
        ),
    ),
    (
        "",
        "Pooling type 'none' is not OAI compatible",
        _refused(
            "These weights do not say how to pool embeddings. Set `pooling: mean` (or cls, last) in engine_options."
        ),
    ),
    (
        "",
        "the current context does not support logits computation",
        _refused(
            "These weights make no text: they embed or rank. Set `embeddings: true` (and for a reranker `pooling: rank`) in "
            "its engine_options in freehold.yaml, and ask on /v1/embeddings or /v1/rerank."
        ),
    ),
    ("", "image input is not supported", _refused("This model takes no images.")),
    (
        "not_supported_error",
        "The current model does not support audio input",
        _refused("This model takes no audio."),
    ),
    ("", "audio input is not supported", _refused("This model takes no audio.")),
    ("", "video input is not supported", _refused("This model takes no video.")),
    ("", "error: cannot make GET request", _no_picture),
    ("", "Failed to download image", _no_picture),
    ("", "[json.exception.type_error.", _bad_field),
    ("", "Field '", _bad_field),
    (
        "",
        f"Unable to generate parser for this template. Automatic parser generation failed: {_SCHEMA_ERROR}",
        _bad_schema,
    ),
    ("", _SCHEMA_ERROR, _bad_schema),
    ("unavailable_error", "Loading model", _loading),
)
"""Source: the bodies that the real server answered (tests/unit/engines/test_llama_cpp.py holds them)."""
_COUNTS = re.compile(r" \(\d+ tokens\)")
_MISSING = re.compile(r"(?:\[json\.exception\.out_of_range\.403\] key )?'(\w+)' (?:not found|is required)")
"""What the server says where a key of the body is missing, also with status 500. Source: seen on the real server."""
_ABOUT_PROMPT = '"prompt" '


def _about_a_key(message: str) -> ApiError | None:
    """Return OpenAI's words for a key of the body that is missing, or the server's own with the key that they mean."""
    missing = _MISSING.fullmatch(message)
    if missing is None and not message.startswith(_ABOUT_PROMPT):
        return None
    if missing is None:
        return invalid_request(message, code=None, param="prompt")
    said = f"Missing required parameter: '{missing[1]}'."
    return invalid_request(said, code="missing_required_parameter", param=missing[1])


def _translate_error(_status: int, body: bytes) -> ApiError | None:
    """Return the error in OpenAI's terms; None, for example, for an answer that was no valid tool call (500)."""
    fields = error_fields(body)
    message = _COUNTS.sub("", str(fields.get("message", "")), count=1)
    for kind, start, answer in _TRANSLATIONS:
        if message.startswith(start) and kind in ("", fields.get("type")):
            return answer(fields)
    return _about_a_key(message)


_STALL_S = 120.0
"""Source: our own choice: 2,048 prompt tokens (one n_batch, in which no other slot gets a word) at 17 tokens/s, as slow as
a 7B model's prompt on two cores."""
_MODELS_FAULT = re.compile(
    r"produced output that does not match|Failed to parse (?:tool call arguments|input at pos)"
)
"""How it says that what the model wrote is no valid tool call. Source: the messages in llama.cpp's common/chat.cpp and
chat-peg-parser.cpp."""


def _blames_model(body: bytes) -> bool:
    return _MODELS_FAULT.search(str(error_fields(body).get("message", ""))) is not None


ENGINE = Engine(
    name="llama-cpp",
    summary="llama.cpp: GGUF weights on CPU or GPU",
    managed=True,
    distribution="xllamacpp",
    paths=ALL_PATHS | COUNT_PATHS | {TRANSCRIPTIONS},
    # `required` is answered in text with some templates, and a named tool is read as `auto` (docs/engines.md, Tools).
    forces_tools=ForcesTools.BY_SCHEMA,
    drops_format=frozenset({"/v1/responses", "/v1/messages"}),  # measured on 2026.10.11549
    # `"a"? "a"? …`, 300 times, stops all slots for minutes; 100 repetitions take a second (measured on 2026.10.11549).
    # A schema of 57 KB with optional properties keeps a thread busy for 18 s after its client left, one of 179 KB for minutes.
    constraint_limits=ConstraintLimits(repeats=100, schema_bytes=32 * 1024),
    variables=("GGML_", "LLAMA_"),
    unix_socket=True,
    stream_to_abort=True,
    usage_per_answer=True,
    prefix_cache=PrefixCache.SLOTS,
    apart_paths=_HEEDS_SLOT,
    # What a slot held is saved in main memory and put back into whatever slot a prompt like it comes to, also by number.
    # A path that drops `cache_prompt` gets the default, so that is off.
    apart_options={"cache_ram": 0, "cache_prompt": False},
    reuse_on_ask=lambda options: "cache_prompt" not in options and not sleeps(options),
    fetches=lambda options: "mmproj" in options,  # without a projector it refuses pictures unseen
    adapter_formats=(Format.GGUF,),
    ask_adapter=_ask_adapter,
    adapter_keys=frozenset({"lora"}),
    request_keys=_DATA.request_keys,
    adapter_paths=_HEEDS_ADAPTERS,
    options=OPTIONS,
    conflicts=conflicts,
    command=_command,
    ready_with=_ready_with,
    metrics_path="/metrics",
    metrics=(
        Metric(name="generated_tokens_total", theirs=("llamacpp:tokens_predicted_total",)),
        Metric(name="prompt_tokens_total", theirs=("llamacpp:prompt_tokens_total",)),
        Metric(name="running_requests", theirs=("llamacpp:requests_processing",)),
        Metric(name="waiting_requests", theirs=("llamacpp:requests_deferred",)),
        Metric(name="decode_steps_total", theirs=("llamacpp:n_decode_total",)),
    ),
    unfinished=Unfinished(path="/slots", tokens=_unfinished_tokens),
    gpus=_gpus,
    gpu_uuids=True,
    slots=_slots,
    max_context_tokens=_max_context_tokens,
    phases=_DATA.phases,
    explain_exit=partial(explain, rules=_DATA.exits, stamp=_STAMP),
    # Exact: the text is put behind the generation prompt, not through the chat template, which might trim it (measured).
    continues=Continues.FINAL_MESSAGE,
    translate_error=_translate_error,
    stall_s=_STALL_S,
    blames_model=_blames_model,
)
