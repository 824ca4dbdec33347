"""What the gateway reads of a request's JSON body, and the few keys that it may change in it.

Only the fields that decide where a request goes are decoded; everything else, prompts above all, stays bytes and is
passed on as it came. Pure.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from freehold.gateway.refuse import Refusal, invalid

_TOKENS_MOST = 10**12  # More is no limit but a number; it keeps sums in reach of plain integers.


class Asked(msgspec.Struct):
    """The fields of a body that the gateway acts on; all others are skipped without being built."""

    model: str | None = None
    stream: bool | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    stream_options: msgspec.Raw = msgspec.Raw(b"")

    @property
    def answer_tokens(self) -> int:
        """Return the most tokens that all answers may have; 0: the body does not say so in a way that can be read.

        What an engine makes of another type is the engine's to say.
        """
        limit = self.max_completion_tokens or self.max_tokens or self.max_output_tokens
        if not isinstance(limit, int) or limit <= 0:
            return 0
        limit, n = min(limit, _TOKENS_MOST), self.n
        return limit * min(n, _TOKENS_MOST) if isinstance(n, int) and n > 1 else limit


_DECODER = msgspec.json.Decoder(Asked)
_RAW_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPTIONS_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_TRUE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"null")


def read_body(data: bytes) -> Asked | Refusal:
    """Return the decoded fields, or the 400 that says what is wrong with the body."""
    try:
        if not data.isascii():
            data.decode()  # fields that are skipped are not checked by the decoder; JSON is UTF-8 (RFC 8259 8.1)
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
    return asked


def too_deep() -> Refusal:
    """Return the 400 for a body nested deeper than the decoder goes."""
    return invalid("The body is not valid JSON: it is nested too deeply.", code="invalid_json")


def _wrong_type(said: str) -> Refusal:
    # msgspec says, for example: Expected `bool | null`, got `str` - at `$.stream`
    param = said.rpartition("$.")[2].rstrip("`") if "$." in said else None
    place = f" for '{param}'" if param else ""
    reason = said.partition(" - at ")[0].replace("`", "")
    return invalid(f"Wrong type{place}: {reason}.", param=param, code="invalid_type")


def rewrite(data: bytes, changes: Mapping[str, msgspec.Raw]) -> bytes:
    """Return a body (valid JSON object, as `read_body` accepted it) with top-level keys set to `changes`.

    All other values keep their bytes. Raises RecursionError for one nested just as deep as `read_body` still accepted.
    """
    return msgspec.json.encode(_RAW_DECODER.decode(data) | dict(changes))


def as_stream(data: bytes, *, with_usage: bool) -> bytes:
    """Return a body that asks for a stream, so that the engine notices when its client leaves.

    `with_usage` asks for the usage chunk too (chat and text completions; the other paths send it anyway).
    """
    changes = {"stream": _TRUE}
    if with_usage:
        changes["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
    return rewrite(data, changes)


def asking_usage(data: bytes, options: msgspec.Raw) -> bytes | None:
    """Return a stream request's body (as `read_body` accepted it) that asks for the usage chunk.

    `options` is its `stream_options`. None: it asks already, or its options are nothing that an engine could take.
    """
    if not options:
        at = data.index(b"{") + 1
        return b'%b"stream_options":{"include_usage":true},%b' % (data[:at], data[at:])
    try:
        told = _OPTIONS_DECODER.decode(options) or {}
        # The other values stay bytes: what JSON can say and Python cannot, 1e999, is no reason not to meter.
        if msgspec.json.decode(told.get("include_usage", _NULL)):
            return None
        # Usage with every chunk hangs on `include_usage`: without that, the caller had not got it.
        told.pop("continuous_usage_stats", None)
        options = msgspec.Raw(msgspec.json.encode(told | {"include_usage": _TRUE}))
        return rewrite(data, {"stream_options": options})
    except (msgspec.DecodeError, RecursionError):
        return None


def with_model(data: bytes, model: str) -> bytes:
    """Return a body that names the model as the engine knows it."""
    return rewrite(data, {"model": msgspec.Raw(msgspec.json.encode(model))})
