"""What one request came to, once it is over: into ledger, access log, the model's estimate and the caller's limits.

Called before the last bytes of an answer leave. What was used is read from the answer once and told to all, so
that they cannot differ. It decides nothing about the request and never fails it.
"""

from typing import TYPE_CHECKING

from freehold.gateway.callers.cost_reservation import CostReservation
from freehold.gateway.exchange.ledger_record import AnswerTokens, RequestEnd, hear, outcome_of
from freehold.ledger.money import picousd
from freehold.ledger.record import Outcome

if TYPE_CHECKING:
    from freehold.gateway.exchange.exchange import Exchange
    from freehold.gateway.fallback.provider import Stay


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
    assembler, away, model = exchange.assembler, exchange.away, exchange.model
    events = 0 if assembler is None else assembler.events
    heard = hear(exchange.passing, exchange.usage, events=events, path=request.path)
    if away is not None or model.price is not None or gateway.recorder is not None or gateway.access.on:
        answer_bytes = exchange.answer_bytes + last_bytes
        outcome = outcome_of(status, answer_bytes, complete=complete)
        first_s = now_s if exchange.first_s is None and last_bytes and request.stream else exchange.first_s
        # In the order of the fields: keywords take as long as half of the rest of this.
        ending = RequestEnd(
            request.adapter or model.entry.name,
            "" if exchange.target is None else exchange.target.id,
            status,
            outcome,
            answer_bytes,
            None if first_s is None else first_s - exchange.started_s,
            now_s - exchange.started_s,
            exchange.attempts - 1,
        )
        _write_down(exchange, ending, heard)
    model.admission.learn(exchange, heard.usage)
    if request.grant is not None:
        request.grant.learn(heard.usage, heard.tokens, len(request.body))
        if request.grant.bill is not None:
            _charge(request.grant.bill, away, heard.cost_usd)


def _write_down(exchange: "Exchange", ending: RequestEnd, heard: AnswerTokens) -> None:
    """Tell whoever keeps it: the fallback that was asked, the ledger, the access log."""
    gateway, away, price = exchange.gateway, exchange.away, exchange.model.price
    if away is not None:
        away.settle(ending, heard)
    elif price is not None:
        heard.cost_usd = price.told(heard.usage, nothing=ending.outcome is Outcome.FAILED)
    if gateway.recorder is not None:
        gateway.recorder.note(exchange.request, ending, heard)
    if away is None or away.reason != "shadow":  # a copy is nobody's request
        gateway.access.note(exchange, ending, heard.usage)


def _charge(bill: CostReservation, away: "Stay | None", cost_usd: str | None) -> None:
    """Charge a cost to a key's budget; an unknown one stays charged as it was reserved, there or here."""
    if cost_usd:
        bill.settle(picousd(cost_usd))
    elif away is not None:
        bill.settle(away.reserved_picousd)
