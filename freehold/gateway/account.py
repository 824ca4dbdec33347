"""What one request came to, once it is over: into ledger, access log, the model's estimate and the caller's limits.

Called before the last bytes of an answer leave. What was used is read from the answer once and told to all, so
that they cannot differ. It decides nothing about the request and never fails it.
"""

from typing import TYPE_CHECKING

from freehold.gateway.recorder import Ending, hear

if TYPE_CHECKING:
    from freehold.gateway.exchange import Exchange


def settle(exchange: "Exchange", status: int, *, complete: bool, last_bytes: int) -> None:
    """Write a request down; `last_bytes` of its answer are about to leave.

    One that ended in the queue, so that no engine was asked, came to nothing: only the access log is told.
    """
    request, gateway = exchange.request, exchange.gateway
    now_s = gateway.now_s()
    if not exchange.attempts:
        exchange.waited_s = now_s - exchange.started_s
        gateway.access.refused(request, exchange, status=status, code=exchange.code)
        return
    first_s = now_s if exchange.first_s is None and last_bytes and request.stream else exchange.first_s
    ending = Ending(
        model=exchange.model.entry.name,
        endpoint="" if exchange.target is None else exchange.target.id,
        status=status,
        complete=complete,
        meter=exchange.passing,
        usage=exchange.usage,
        events=0 if exchange.assembler is None else exchange.assembler.events,
        bytes=exchange.answer_bytes + last_bytes,
        ttft_s=None if first_s is None else first_s - exchange.started_s,
        took_s=now_s - exchange.started_s,
        retries=exchange.attempts - 1,
    )
    heard = hear(ending, request.path)
    if gateway.recorder is not None:
        gateway.recorder.note(request, ending, heard)
    gateway.access.note(exchange, ending, heard.usage)
    exchange.model.admission.learn(exchange, heard.usage)
    if request.grant is not None:
        request.grant.learn(heard.usage, heard.tokens, len(request.body))
