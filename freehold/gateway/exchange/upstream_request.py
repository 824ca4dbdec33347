"""The body that an engine is sent: the client's body, adapted to one target. Pure.

Most bodies are sent unchanged. A body is rewritten only where the engine knows the model by another name, is to answer by an
adapter, keeps its callers' prefix caches apart, or has to be asked for a stream so that it notices when its client leaves; the
answer is then put together again.
Nothing is checked here: the engine judges the fields.
"""

from freehold.engines.base import PrefixCache
from freehold.gateway.answers.assemble import Assembler, assembler_for
from freehold.gateway.endpoints.slot_owners import SlotStay
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.wire import body
from freehold.gateway.wire.request import Request


def body_for(
    request: Request, target: UpstreamTarget, *, data: bytes, stay: SlotStay | None
) -> tuple[bytes, Assembler | None]:
    """Return `data`, a body of this request, for `target`, and what puts its answer together; None: the answer is passed on as it comes.

    `stay`: its slot there; None: it has none. Raises RecursionError for a body that is nested too deeply to be rewritten.
    """
    if stay is not None:
        slot = b'"id_slot":%d,' % stay.slot if stay.slot >= 0 else b""
        fresh = b"" if stay.reuses else b'"cache_prompt":false,'
        data = body.in_cache(data, slot + fresh, replaces=request.sets_cache)
    elif request.cache_salt and target.engine.prefix_cache is PrefixCache.SALT:
        salt = b'"cache_salt":"%b",' % request.cache_salt.encode()
        data = body.in_cache(data, salt, replaces=request.sets_cache)
    if request.adapter:
        data = body.rewrite(data, target.adapters[request.adapter], without=target.engine.adapter_keys)
    elif target.renamed:
        data = body.with_model(data, target.endpoint.upstream_model)
    if target.engine.stream_to_abort and not request.stream:
        assembler = assembler_for(request.path, choices=request.choices)
        if assembler is not None:
            return body.as_stream(data, with_usage=request.path in body.USAGE_OPTION_PATHS), assembler
    return data, None
