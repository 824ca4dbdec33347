"""What one request came to, once it is over: into ledger, access log, the model's estimate and the caller's limits.

Called before the last bytes of an answer leave. What was used is read from the answer once and told to all, so
that they cannot differ. It decides nothing about the request and never fails it.
"""

from typing import TYPE_CHECKING

from freehold.gateway.bill import Bill
from freehold.gateway.recorder import Ending, hear
from freehold.ledger.money import picousd
from freehold.ledger.record import Outcome

if TYPE_CHECKING:
    from freehold.gateway.exchange import Exchange
    from freehold.gateway.fallback import Away


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
    # In the order of the fields: eleven keywords take as long as half of the rest of this.
    ending = Ending(
        exchange.model.entry.name,
        "" if exchange.target is None else exchange.target.id,
        status,
        complete,
        exchange.passing,
        exchange.usage,
        0 if exchange.assembler is None else exchange.assembler.events,
        exchange.answer_bytes + last_bytes,
        None if first_s is None else first_s - exchange.started_s,
        now_s - exchange.started_s,
        exchange.attempts - 1,
    )
    heard = hear(ending, request.path)
    if exchange.away is not None:
        exchange.away.settle(ending, heard)
    elif exchange.model.price is not None:
        heard.cost_usd = exchange.model.price.told(heard.usage, nothing=ending.outcome() is Outcome.FAILED)
    if gateway.recorder is not None:
        gateway.recorder.note(request, ending, heard)
    if exchange.away is None or exchange.away.reason != "shadow":  # a copy is nobody's request
        gateway.access.note(exchange, ending, heard.usage)
    exchange.model.admission.learn(exchange, heard.usage)
    if request.grant is not None:
        request.grant.learn(heard.usage, heard.tokens, len(request.body))
        if request.grant.bill is not None:
            _charge(request.grant.bill, exchange.away, heard.cost_usd)


def _charge(bill: Bill, away: "Away | None", cost_usd: str | None) -> None:
    """Charge a cost to a key's budget; an unknown one stays charged as it was reserved, there or here."""
    if cost_usd:
        bill.settle(picousd(cost_usd))
    elif away is not None:
        bill.settle(away.reserved_picousd)
