"""Identify callers by the hash of their key, and check whether a key may have what it asks for.

A key is found by the hash of the presented one, from memory alone. A reload keeps what each key has used. A revoked key is
rejected from then on; its requests under way continue to their end, unless it was revoked at once. The limits hold over all workers of a gateway
(`shared_limits`); another gateway counts for itself. Nothing here waits: background threads read and write keys file and budgets.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from hmac import compare_digest
from math import floor, inf
from pathlib import Path
from ssl import cert_time_to_seconds
from typing import Any, NamedTuple

from freehold.core.clock import wall_s
from freehold.gateway.callers.grant import CostReservation, KeyState, over_usd
from freehold.gateway.callers.keys import KeysFile, why_refused
from freehold.gateway.callers.rate_limits import Over, over_limit
from freehold.gateway.callers.shared_limits import SharedKeys
from freehold.gateway.callers.spend import Month, usd_place
from freehold.gateway.counters.shared_counters import SharedCounters
from freehold.gateway.settings import Settings
from freehold.gateway.storage.budget_file import BudgetFile
from freehold.gateway.storage.key_store import KeyStore
from freehold.gateway.storage.key_watch import KeyWatch
from freehold.gateway.wire import errors
from freehold.gateway.wire.errors import Rejection
from freehold.gateway.wire.request import Caller, Request
from freehold.gateway.wire.request_tokens import prompt_tokens, tokens_asked
from freehold.telemetry.logs import get_logger

_STUCK_S = (
    10.0  # A look at the keys file takes well under a second; one that takes this long hangs on its disk.
)
_OPEN = frozenset({b"/livez", b"/readyz", b"/health"})
"""Paths that need no key: probes of balancers and supervisors have none."""


class ClientCertificate(NamedTuple):
    """A certificate that the CA of clients has signed, as far as it matters here."""

    key_id: str
    """Its common name: the id of the key whose caller its holder is."""
    ends_s: float
    """When it expires, seconds since 1970: a connection can outlive it."""


def certificate_of(shown: Mapping[str, Any] | None) -> ClientCertificate | None:
    """Return a verified certificate from what `ssl` says of it; None: the client showed none, or one without one name."""
    if not shown:
        return None
    names = [value for part in shown["subject"] for name, value in part if name == "commonName"]
    return ClientCertificate(names[0], cert_time_to_seconds(shown["notAfter"])) if len(names) == 1 else None


class Authenticator:
    """All keys of one gateway process."""

    def __init__(
        self,
        settings: Settings,
        *,
        end_requests: Callable[[AbstractSet[Caller]], object],
        counters: SharedCounters | None = None,
    ) -> None:
        """Know no key until `start`; `end_requests` ends all requests of keys that were revoked at once."""
        self._end_requests = end_requests
        self._loop = asyncio.get_running_loop()
        self._now_s = self._loop.time
        self._log = get_logger("gateway.callers")
        self._by_id: dict[str, KeyState] = {}
        self._by_hash: dict[bytes, KeyState] = {}
        self.prices = settings.prices
        """By model, for budgets in dollars."""
        self._metrics_open = settings.metrics_open
        self.problem = ""
        """Why the keys file cannot be used as it is now; empty: its newest version holds."""
        self._budgets = BudgetFile(Path(settings.budgets_path), self._log)
        self._shared = SharedKeys(counters) if counters is not None else None
        self._watch = KeyWatch(KeyStore(Path(settings.keys_path)), self._changed)
        self.tick()

    def __repr__(self) -> str:
        return f"<Authenticator {self.active} of {len(self._by_id)} keys{', ' * bool(self.trouble)}{self.trouble}>"

    def start(self) -> None:
        """Read the keys, and from now on watch their file and save the budgets."""
        self._watch.start()
        self._budgets.start()

    def stop(self) -> None:
        """Save once more and end the background threads."""
        self._watch.stop()
        self._budgets.stop()

    def tick(self) -> None:
        """Note the time, coarsely: keys expire and months end within half a second."""
        self._wall_s = wall_s()
        self._budgets.spending.enter(self._wall_s)
        if self._shared is not None:
            self._shared.tick(self._budgets.spending.month, int(self._now_s() * 1000))

    # For operators

    @property
    def active(self) -> int:
        """Return how many keys are accepted now."""
        return sum(not why_refused(caller.record, self._wall_s) for caller in self._by_id.values())

    @property
    def trouble(self) -> str:
        """Return a problem that an operator should fix, without a path, or nothing."""
        if self._watch.silent_s > _STUCK_S:
            return "the disk of the keys file does not answer"
        if self.problem:
            return f"the keys file {self.problem}; the last good keys hold"
        return f"budgets cannot be saved: {self._budgets.trouble}" if self._budgets.trouble else ""

    # For requests

    def identify(self, request: Request, certificate: ClientCertificate | None = None) -> Rejection | None:
        """Find out whose request this is, once its head has come; return why it is not taken, or None."""
        digest, caller = request.key_digest, None
        if digest:
            # Found by a digest that a client cannot choose, and compared in constant time: neither step leaks a key.
            caller = self._by_hash.get(digest)
            if caller is not None and not compare_digest(caller.hash, digest):
                caller = None
        elif certificate is not None and digest is None and self._wall_s < certificate.ends_s:
            caller = self._by_id.get(certificate.key_id)
        if caller is not None and self._wall_s < caller.ends_s:
            request.caller, request.key_id = caller, caller.id
            if request.timeout_s == inf:
                request.timeout_s = caller.timeout_s
            return None
        path = request.url.partition(b"?")[0]
        if path in _OPEN or (path == b"/metrics" and self._metrics_open and not request.foreign):
            return None
        if certificate is not None and digest is None:
            return errors.unauthorized(
                _EXPIRED if certificate.ends_s <= self._wall_s else _NO_KEY_OF_THIS_NAME
            )
        return errors.unauthorized(_why(digest, caller, self._wall_s))

    def admit(self, request: Request, model: str) -> Rejection | None:
        """Give a request its place and its tokens, or return why not; a rejection takes nothing.

        `model` is whose price is charged: an adapter's is its model's.
        """
        caller = request.caller
        assert isinstance(caller, KeyState), "identify rejects every request without a key"
        if not caller.ends_s:  # since its head came
            return errors.unauthorized(REVOKED)
        if not caller.limited:
            return None
        tokens = 0
        if caller.counts_tokens:
            tokens = tokens_asked(len(request.body), request.path, request.max_tokens)
        limits = caller.record.limits
        budget = limits.monthly_tokens
        month = None if budget is None else self._budgets.spending.month
        over = None if month is None or budget is None else self._over_budget(caller, budget, month)
        if limits.monthly_microusd is not None and (over is None or over.limit == "reserved"):
            over = self._over_usd(caller, limits.monthly_microusd) or over
        over = over or caller.allowance.ask(tokens, floor(self._now_s() * 1000))
        if over is None:
            request.grant = grant = caller.grant(tokens, month)
            if limits.monthly_microusd is not None:
                grant.cost = self._reserve(caller, request, model, tokens)
            if self._shared is not None and (month is not None or grant.cost is not None):
                self._shared.publish(caller, self._budgets.spending.month)
        request.limit_lines = caller.allowance.lines()
        return None if over is None else over_limit(over, caller.record.limits, tokens=tokens)

    def _over_usd(self, caller: KeyState, budget_microusd: int) -> Over | None:
        month, reserved_picousd = self._budgets.spending.month, caller.reserved_picousd
        charged_picousd = month.get(usd_place(caller.id), 0)
        if self._shared is not None:
            charged_picousd, reserved_picousd = self._shared.spent_picousd(caller, month)
        return over_usd(charged_picousd, reserved_picousd, budget_microusd=budget_microusd)

    def _reserve(self, caller: KeyState, request: Request, model: str, tokens: int) -> CostReservation:
        price, prompt = self.prices.get(model), prompt_tokens(len(request.body))
        reserved_picousd = 0 if price is None else price.of(prompt, tokens - prompt)
        return CostReservation(caller, self._budgets.spending.month, reserved_picousd=reserved_picousd)

    # News of the keys file

    def _changed(self, keys: KeysFile | None, problem: str) -> None:
        """Take what the watch found: at the start at once, later from its thread."""
        if self._watch.started:
            with contextlib.suppress(RuntimeError):  # the loop has ended, no request follows
                self._loop.call_soon_threadsafe(self._take, keys, problem)
        else:
            self._take(keys, problem)

    def _take(self, keys: KeysFile | None, problem: str) -> None:
        self.problem = problem
        if keys is None:
            self._log.error("keys_file_unusable", reason=problem, doing="the last good keys hold")
            return
        now_ms = int(self._now_s() * 1000)
        before = self._by_id
        self._by_id = {}
        ended: set[Caller] = set()
        for record in keys.keys:
            caller = before.get(record.id)
            if caller is None:
                caller = KeyState(record, now_ms)
                if self._shared is not None:
                    self._shared.take_over(caller, self._budgets.spending.month, now_ms)
            elif caller.record != record:
                caller.change(record, now_ms)
                if record.ends_requests:
                    ended.add(caller)
            self._by_id[record.id] = caller
        for gone in before.keys() - self._by_id.keys():
            if self._shared is not None:
                self._shared.forget(before[gone])
        self._by_hash = {caller.hash: caller for caller in self._by_id.values()}
        self._log.info("keys_loaded", active=self.active, keys=len(self._by_id))
        if ended:
            self._end_requests(ended)

    def _over_budget(self, caller: KeyState, budget: int, month: Month) -> Over | None:
        spent, reserved = month.get(caller.id, 0), caller.reserved
        if self._shared is not None:
            spent, reserved = self._shared.spent(caller, month)
        if spent < budget:
            return None
        return Over("budget" if spent - reserved >= budget else "reserved")


def _why(digest: bytes | None, caller: KeyState | None, now_s: float) -> str:
    """Return why a request is rejected. Only the holder of a key learns that it was revoked or has expired."""
    if digest is None:
        return "You did not provide an API key: send it as `Authorization: Bearer KEY`."
    if not digest:
        return "Send one API key, as `Authorization: Bearer KEY` or, alone, as `x-api-key: KEY`."
    why = why_refused(caller.record, now_s) if caller is not None else ""
    return _ENDED.get(why, "Incorrect API key provided.")


_EXPIRED = "The client certificate has expired."
_NO_KEY_OF_THIS_NAME = "The certificate's name is not an active API key."
REVOKED = "This API key was revoked."
_ENDED = {"revoked": REVOKED, "expired": "This API key has expired."}
