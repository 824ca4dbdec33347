"""What becomes of a request: it is answered here, rejected, or given to an exchange.

It decides by path, method, model, key and body. It does not decide whether there is room for a request: the model's
`queue.admission` does, later.
"""

from hashlib import blake2b

from freehold.engines.base import MEDIA_PATHS, TRANSCRIPTIONS, ForcesTools, PrefixCache
from freehold.gateway.answers import forced_call
from freehold.gateway.endpoints.model import ServedModel
from freehold.gateway.exchange.exchange import Exchange
from freehold.gateway.server import builtin_routes
from freehold.gateway.server.gateway import Gateway
from freehold.gateway.wire import errors
from freehold.gateway.wire.body import (
    BodyFields,
    ask_usage,
    read_body,
    refuse_adapter_keys,
    refuse_shapes,
    refuse_unknown,
)
from freehold.gateway.wire.constraint_limits import refuse_constraints, refuse_counts
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.form import fields_of, read_form
from freehold.gateway.wire.media_urls import refuse_addresses
from freehold.gateway.wire.ports import Client
from freehold.gateway.wire.request import ENGINE_PATHS, Caller, Request
from freehold.gateway.wire.request_tokens import refuse_too_long
from freehold.gateway.wire.unanswerable import CHAT_PATH, must_call, refuse_unanswerable

LARGE_BYTES = 256 * 1024
"""Larger bodies are read in a thread. Source: our own choice: the worst of this size takes some 3 ms, measured."""

_SHARED = (
    PrefixCache.SHARED
)  # Members of an enumeration are looked up slowly, and this is wanted once per request.


def begin(
    gateway: Gateway, client: Client, *, request: Request, found: Exchange | Rejection | None
) -> Exchange | None:
    """Answer a request here and return None, or return the exchange that will answer it.

    `found` is what `read` returned in a thread: what may have changed meanwhile is checked again. None: it was not read yet.
    """
    if request.path not in ENGINE_PATHS:
        _answer_here(gateway, client, request)
        return None
    if found is None:
        found = read(gateway, client, request)
    elif isinstance(found, Exchange):
        found = _why_not(gateway, found.model, request, elsewhere=found.detour is not None) or found
    if isinstance(found, Exchange):
        rejection = _admit(gateway, found)
        if rejection is None:
            return found
        found = rejection
    client.reject(found, request)
    return None


def _answer_here(gateway: Gateway, client: Client, request: Request) -> None:
    answer = builtin_routes.answer(gateway, request)
    if isinstance(answer, Rejection):
        client.reject(answer, request)
    else:
        status, body, content_type = answer
        gateway.context.access_log.answered_here(request, status, len(body))
        client.reply(request, status, body=body, content_type=content_type)


def read(gateway: Gateway, client: Client, request: Request) -> Exchange | Rejection:
    """Return the exchange of a request that is not admitted yet, or why it is rejected.

    Large bodies are read in a thread, so nothing but the request is changed here.
    """
    if request.method != b"POST":
        return errors.wrong_method(request.method.decode("ascii"), "POST")
    fields = read_body(request.body) if request.path != TRANSCRIPTIONS else _read_form(request)
    if not isinstance(fields, BodyFields):
        return fields
    name, directory, caller = fields.model or "", gateway.directory, request.caller
    model = directory.models.get(name)
    if model is None:
        model = directory.adapters.get(name)
        request.adapter = "" if model is None else name
    if model is None or (caller is not None and not caller.may_use(name)):
        return _unknown(gateway, request, name)
    detour = None if gateway.fallbacks is None else gateway.fallbacks.detour(model, request)
    usual = fields.is_usual()
    rejection = (
        _why_not(gateway, model, request, elsewhere=detour is not None)
        or _wrong_body(model, request)
        or (None if usual else fields.refuse_private(model.entry.allow_keys, request.body))
        or (
            refuse_too_long(request.body, request.path, model.entry.max_context_tokens)
            if len(request.body) > model.sure_bytes
            else None
        )
        or (None if usual else _unusual(model, request, fields))
        or (_unknown_key(model, request) if model.known_keys else None)
    )
    if rejection is not None:
        return rejection
    request.stream, request.max_tokens = fields.stream is True, fields.answer_tokens
    if model.usage_per_answer:
        request.choices = fields.choices
    if (
        caller is not None
        and model.engine.prefix_cache is not _SHARED
        and not gateway.context.settings.share_cache
    ):
        _keep_apart(request, caller, fields)
    if request.stream:
        request.resumable = model.continues is not None
        ask_usage(request, fields.stream_options)
    exchange = Exchange(gateway.context, client, request)
    exchange.model, exchange.detour = model, detour
    return exchange


def _admit(gateway: Gateway, exchange: Exchange) -> Rejection | None:
    """Return why a request is not admitted, or None.

    Asked last: what is rejected for another reason costs no caller anything, and from here on the exchange gives back what the
    request was granted.
    """
    context, request, name = gateway.context, exchange.request, exchange.model.entry.name
    if not context.quarantine.is_empty:
        rejection = context.quarantine.refuse(name, request.body, context.tick_s)
        if rejection is not None:
            return rejection
    return None if gateway.authenticator is None else gateway.authenticator.admit(request, name)


def _keep_apart(request: Request, caller: Caller, fields: BodyFields) -> None:
    """Let a request use its own caller's prefix cache alone; a salt of the client's own divides that further."""
    request.cache_salt, request.one_answer = caller.cache_domain, fields.one_answer
    if fields.cache_salt or fields.id_slot or fields.cache_prompt:
        request.sets_cache = True
        if fields.cache_salt:
            own = caller.cache_domain.encode() + bytes(fields.cache_salt)
            request.cache_salt = blake2b(own, digest_size=16).hexdigest()


def _read_form(request: Request) -> BodyFields | Rejection:
    form = read_form(request.body, request.form)
    return form if isinstance(form, Rejection) else fields_of(form)


def _unknown_key(model: ServedModel, request: Request) -> Rejection | None:
    """Return the 400 for a key that the model's engine does not know, or None; a form has fields of its own."""
    return None if request.path == TRANSCRIPTIONS else refuse_unknown(request.body, model.known_keys)


def _unknown(gateway: Gateway, request: Request, name: str) -> Rejection:
    if gateway.directory.snapshot.generation < 0:
        # A gateway that was just started (again) and has no snapshot yet: a 404 would be final for a client.
        return errors.unavailable("The gateway is starting.", code="model_not_ready")
    return errors.model_not_found(name, builtin_routes.models_for(gateway, request.caller))


def _why_not(gateway: Gateway, model: ServedModel, request: Request, *, elsewhere: bool) -> Rejection | None:
    """Return why a model cannot be asked now, or None; `elsewhere`: other providers may answer too."""
    name, adapter = model.entry.name, request.adapter
    if request.path not in model.engine.paths:
        return errors.invalid(
            f"The model {name} does not serve {request.path}.", code="not_supported_by_engine"
        )
    if adapter and request.path not in (model.engine.adapter_paths or model.engine.paths - MEDIA_PATHS):
        return errors.invalid(
            f"{adapter} is an adapter of {name}, and its engine takes none on {request.path}: it would answer without.",
            code="not_supported_by_engine",
        )
    if not elsewhere and not (model.targets and (not adapter or model.has_adapter(adapter))):
        return errors.not_ready(adapter or name)
    if gateway.context.draining:
        return errors.unavailable("The server is shutting down.", code="draining")
    if not request.timeout_s > 0:
        return errors.invalid(
            "x-freehold-timeout must be a number of seconds above 0.",
            param="x-freehold-timeout",
            code="invalid_header",
        )
    return None


def _unusual(model: ServedModel, request: Request, fields: BodyFields) -> Rejection | None:
    return (
        refuse_unanswerable(fields, request.path, model.engine)
        or refuse_counts(fields)
        or refuse_constraints(fields, model.engine.constraint_limits)
        or refuse_shapes(fields)
        or _force_call(model, request, fields)
    )


def _force_call(model: ServedModel, request: Request, fields: BodyFields) -> Rejection | None:
    """Note that the answer must be a call that the gateway has to word for the engine; return what is wrong with it, or None."""
    by_schema = model.engine.forces_tools is ForcesTools.BY_SCHEMA and request.path == CHAT_PATH
    if not by_schema or not must_call(fields):
        return None
    request.forced_call = True
    worded = forced_call.worded(request.body)
    return worded if isinstance(worded, Rejection) else None


def _wrong_body(model: ServedModel, request: Request) -> Rejection | None:
    """Return what in a body its model must not be asked, or None: an address to fetch, an adapter by its number."""
    if request.path == TRANSCRIPTIONS:
        return None  # a form holds its file, and adapters are not asked on its path
    rejection = None if model.entry.media_urls else refuse_addresses(request.body)
    if rejection is None and model.entry.adapters and not request.adapter:
        rejection = refuse_adapter_keys(request.body, model.engine.adapter_keys)
    return rejection
