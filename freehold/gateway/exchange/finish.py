"""What one request came to, once it is over: into ledger, access log, the model's estimate and the caller's limits.

Called before the last bytes of an answer leave. Usage is read from the answer once and given to all of them, so that they
cannot differ. It decides nothing about the request and never fails it.
"""

from typing import Protocol

from freehold.core.clock import wall_s
from freehold.engines.base import COUNT_PATHS
from freehold.gateway.answers.stream_tap import SILENT_EVENTS
from freehold.gateway.answers.usage import Usage
from freehold.gateway.exchange.attempt import Attempt, AttemptOwner
from freehold.gateway.exchange.ledger_record import AnswerTokens, RequestEnd, outcome_of
from freehold.gateway.exchange.provider import Stay
from freehold.gateway.wire.request import Charge
from freehold.ledger.records.money import picousd
from freehold.ledger.records.record import Outcome


class EndedRequest(AttemptOwner, Protocol):
    """A request that is over, or about to be; `exchange.Exchange` is one."""

    attempt: Attempt | None
    attempts: int
    stay: Stay | None
    """Its stay at another provider; None: it is here."""
    usage: Usage | None
    """What an answer used that no tap has seen; None: unknown."""
    code: str
    """Why it failed, once it has: an error's code."""
    started_s: float
    waited_s: float


def record_end(ended: EndedRequest, status: int, *, complete: bool, last_bytes: int) -> AnswerTokens | None:
    """Record a request; `last_bytes` of its answer are about to leave. Return what is known of its tokens.

    None: it ended in the queue, so no engine was asked, and only the access log gets it.
    """
    context, request, model = ended.context, ended.request, ended.model
    if ended.attempt is None:
        _log_refused(ended, status)
        return None
    tokens, stay, price = _tokens(ended, ended.attempt), ended.stay, model.price
    ledger, log = context.ledger, context.access_log.writer
    if ledger is not None or log is not None or stay is not None or price is not None:
        end = _end(ended, tokens, status, complete=complete, last_bytes=last_bytes)
        if stay is not None:
            stay.settle(end)
        elif price is not None:
            tokens.cost_usd = price.cost_usd(tokens.usage, nothing=end.outcome is Outcome.FAILED)
        if ledger is not None:
            ledger.note(end)
        if log is not None and (stay is None or not stay.is_copy):
            log.offer(end)
    if request.grant is not None:
        _charge(request.grant, tokens, stay, len(request.body))
    return tokens


def _charge(grant: Charge, tokens: AnswerTokens, stay: Stay | None, body_bytes: int) -> None:
    """Charge the caller's limits with what the request used and cost."""
    usage, used_tokens = tokens.usage, None
    if usage is not None and usage.prompt_tokens is not None:
        used_tokens = usage.prompt_tokens + (usage.completion_tokens or 0)
    grant.learn(used_tokens, tokens.tokens, body_bytes)
    if tokens.cost_usd:
        grant.pay(picousd(tokens.cost_usd))
    elif stay is not None:
        grant.pay(stay.reserved_picousd)  # an unknown cost stays charged as it was reserved there


def _log_refused(ended: EndedRequest, status: int) -> None:
    """Log a request that ended in the queue."""
    context, request = ended.context, ended.request
    ended.waited_s = waited_s = context.now_s() - ended.started_s
    name = request.adapter or ended.model.entry.name
    context.access_log.refused(request, status=status, code=ended.code, model=name, waited_s=waited_s)


def count_end(ended: EndedRequest, status: int, now_s: float) -> None:
    """Free the request's place at its target, give back what its caller has left, and count it."""
    attempt, request, answer_bytes = ended.attempt, ended.request, ended.answer_bytes
    if attempt is not None:
        attempt.leave(now_s - attempt.heard_s if attempt.head is None and status == 200 else None)
    if request.grant is not None:
        request.grant.end(status, answer_bytes, asked=ended.attempts > 0)
    ttft_s = None if ended.first_s is None else ended.first_s - ended.started_s
    ended.model.metrics.finished(
        request.path, status, took_s=now_s - ended.started_s, ttft_s=ttft_s, answer_bytes=answer_bytes
    )


def _tokens(ended: EndedRequest, attempt: Attempt) -> AnswerTokens:
    if ended.request.path in COUNT_PATHS:
        return AnswerTokens(Usage(0, 0, 0), 0, 0)  # a prompt that is only counted costs its caller no tokens
    if ended.tap is not None:
        return AnswerTokens(*ended.tap.counted())
    if attempt.assembler is None or not attempt.assembler.events:
        return AnswerTokens(ended.usage, None, 0)
    silent = SILENT_EVENTS.get(ended.request.path, 0)
    return AnswerTokens(ended.usage, max(0, attempt.assembler.events - silent), 0)


def _end(
    ended: EndedRequest, tokens: AnswerTokens, status: int, *, complete: bool, last_bytes: int
) -> RequestEnd:
    now_s, request, first_s, attempt = ended.context.now_s(), ended.request, ended.first_s, ended.attempt
    answer_bytes = ended.answer_bytes + last_bytes
    if first_s is None and last_bytes and request.stream:
        first_s = now_s
    # In the order of the fields: keywords take as long as half of the rest of this.
    return RequestEnd(
        wall_s(), request.id_line, request.key_id, request.path, request.stream,
        request.adapter or ended.model.entry.name, "" if attempt is None else attempt.target.id,
        status, outcome_of(status, answer_bytes, complete=complete), answer_bytes,
        None if first_s is None else first_s - ended.started_s, now_s - ended.started_s,
        ended.attempts - 1, ended.waited_s, ended.code, tokens,
    )  # fmt: skip
