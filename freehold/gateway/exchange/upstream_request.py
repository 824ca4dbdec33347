"""The body that an engine is sent: the client's body, adapted to one target. Pure.

Most bodies are sent unchanged. A body is rewritten only where the engine knows the model by another name, is to answer by an
adapter, keeps its callers' prefix caches apart, has to be made to call a tool, or has to be asked for a stream so that it notices
when its client leaves; the answer is then put together again.
Nothing is checked here: the engine judges the fields.
"""

from freehold.engines.base import TRANSCRIPTIONS, ForcesTools
from freehold.gateway.answers import forced_call
from freehold.gateway.answers.assemble import Assembler, assembler_for
from freehold.gateway.endpoints.slot_owners import SlotStay
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.wire import body, form
from freehold.gateway.wire.request import Request
from freehold.gateway.wire.unanswerable import with_response_format


def body_for(
    request: Request, target: UpstreamTarget, *, data: bytes, stay: SlotStay | None
) -> tuple[bytes, Assembler | None]:
    """Return `data`, a body of this request, for `target`, and what puts its answer together; None: the answer is passed on as it comes.

    `stay`: its slot there; None: it has none. Raises RecursionError for a body that is nested too deeply to be rewritten.
    """
    if request.cache_salt and request.path in target.engine.apart_paths:
        data = body.in_cache(
            data, _cache_members(request.cache_salt, stay, target), replaces=request.sets_cache
        )
    if request.adapter:
        data = body.rewrite(data, target.adapters[request.adapter], without=target.engine.adapter_keys)
    elif target.renamed:
        name = target.endpoint.upstream_model
        if request.path == TRANSCRIPTIONS:
            data = form.with_model(data, request.form, name)
        else:
            data = body.with_model(data, name)
    if request.path in target.engine.drops_format:
        data = with_response_format(data)
    if request.forced_call and target.engine.forces_tools is ForcesTools.BY_SCHEMA:
        worded = forced_call.worded(data)
        assert isinstance(worded, bytes), "it was worded before, when the request came"
        calls = assembler_for(request.path, choices=request.choices, then=forced_call.as_calls)
        return body.as_stream(worded, with_usage=True), calls
    if target.engine.stream_to_abort and not request.stream:
        assembler = assembler_for(request.path, choices=request.choices)
        if assembler is not None:
            return body.as_stream(data, with_usage=request.path in body.USAGE_OPTION_PATHS), assembler
    return data, None


def _cache_members(salt: str, stay: SlotStay | None, target: UpstreamTarget) -> bytes:
    """Return the members of a body that choose its cache, each with a comma."""
    if stay is None:
        return b'"cache_salt":"%b",' % salt.encode()
    slot = b'"id_slot":%d,' % stay.slot if stay.slot >= 0 else b""
    if not stay.reuses:
        return slot + b'"cache_prompt":false,'
    return slot + (b'"cache_prompt":true,' if target.endpoint.reuse_on_ask else b"")
