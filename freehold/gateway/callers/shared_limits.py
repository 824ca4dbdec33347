"""What a key may still do when several workers serve it: each keeps what was used through it, all read the sum.

What was used fades at the limit's rate, shared out among the workers by what each holds of it; so a worker without use of
a key costs nothing, and one that was just started sees at once what the others hold. Between two looks (half a second)
a worker may take what another has not let fade yet for used, and two may take the last place at the same moment: over
any minute a key gets at most one request per other worker beyond its limit, and what it used through a worker that died
is forgotten. Budgets of a month are kept in parts, one per worker, and held by their sum; dollars stand on the counters in
millionths, each part rounded up.
"""

from collections.abc import Mapping

from freehold.gateway.callers.grant import PICOUSD_PER_MICROUSD, KeyState
from freehold.gateway.callers.keys import KeyLimits
from freehold.gateway.callers.rate_limits import MINUTE_MS, Allowance, Bucket, Over, duration
from freehold.gateway.callers.spend import usd_place
from freehold.gateway.counters.shared_counters import CounterRow, SharedCounters

_IN_FLIGHT, _REQUESTS, _TOKENS, _MONTH, _RESERVED, _USD, _USD_RESERVED = range(7)
_NOTHING = (0, 0, 0, 0)  # A key that has spent nothing and reserves nothing.


class SharedBucket(Bucket):
    """One allowance of which other workers use a part."""

    __slots__ = ("_row", "_what")

    def __init__(
        self, per_minute: int, now_ms: int, *, row: CounterRow, what: int, older: Bucket | None = None
    ) -> None:
        super().__init__(per_minute, now_ms, older=older)
        self._row = row
        self._what = what
        self.publish()

    def wait_ms(self, amount: int, now_ms: int) -> int:
        """Return in how many milliseconds there is room for `amount`, 0 for now; more than the brim never fits."""
        others, used = self._row.others(self._what), self.used
        if now_ms > self._at_ms:
            if used > 0:
                # All that is used fades at the limit's rate: here the part of it that is here.
                faded = (now_ms - self._at_ms) * self.per_minute * used // (used + max(0, others))
                self.level += min(used, faded)
            self._at_ms = now_ms
        self.publish()
        lacking = amount * MINUTE_MS - (self.level - others)
        return -(-lacking // self.per_minute) if lacking > 0 else 0

    def take(self, amount: int) -> None:
        """Take `amount` out, below nothing if need be; a negative one is given back, at most to the brim."""
        super().take(amount)
        self.publish()

    def publish(self) -> None:
        """Publish how much is used here."""
        self._row.put(self._what, self.used)

    def shown(self) -> tuple[int, bytes]:
        """Return how many whole things are left, and in what time the bucket is full if nothing more is taken."""
        left = self.level - self._row.others(self._what)
        full_in_ms = -((left - self._brim) // self.per_minute)
        return max(0, left // MINUTE_MS), duration(max(0, full_in_ms))


class SharedAllowance(Allowance):
    """All buckets of one key at one of several workers."""

    __slots__ = ("_keys", "row")

    def __init__(self, keys: "SharedKeys", row: CounterRow, *, limits: KeyLimits, now_ms: int) -> None:
        self._keys = keys
        self.row = row
        super().__init__(limits, now_ms)

    @property
    def in_flight(self) -> int:
        """Return the key's requests under way at this worker."""
        return self.row.get(_IN_FLIGHT)

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        """Publish the number to the other workers."""
        self.row.put(_IN_FLIGHT, value)

    def change(self, limits: KeyLimits, now_ms: int) -> None:
        """Hold to other limits from now on; what was used stays used."""
        super().change(limits, now_ms)
        self._requests = self._share(self._requests, _REQUESTS, now_ms)
        self._tokens = self._share(self._tokens, _TOKENS, now_ms)

    def _share(self, bucket: Bucket | None, what: int, now_ms: int) -> Bucket | None:
        if bucket is None:
            self.row.put(what, 0)
            return None
        return SharedBucket(bucket.per_minute, now_ms, older=bucket, row=self.row, what=what)

    def ask(self, tokens: int, now_ms: int) -> Over | None:
        """Take one request of `tokens`, or return the limit that it would break; then nothing is taken."""
        over = super().ask(tokens, now_ms)
        if over is not None:
            return over
        self._keys.active[self] = None
        if self._concurrency is not None and self.row.total(_IN_FLIGHT) > self._concurrency:
            self.in_flight -= 1
            self.give_back_request()
            self.charge(-tokens)
            return Over("concurrency")
        for bucket in self._buckets():
            bucket.publish()
        return None

    def fade(self, now_ms: int) -> bool:
        """Let the use fade, publish what is left of it, and return whether anything is."""
        for bucket in self._buckets():
            bucket.wait_ms(0, now_ms)
        return self.in_flight > 0 or any(bucket.used for bucket in self._buckets())

    def _buckets(self) -> list[SharedBucket]:
        return [each for each in (self._requests, self._tokens) if isinstance(each, SharedBucket)]


class SharedKeys:
    """All keys at one of several workers."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self.active: dict[SharedAllowance, None] = {}
        """Of whom something was used here and has not faded yet."""
        self._budgeted: dict[str, KeyState] = {}
        self._published: dict[str, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"<SharedKeys {len(self.active)} active, {len(self._budgeted)} with a budget>"

    def take_over(self, caller: KeyState, month: Mapping[str, int], now_ms: int) -> None:
        """Let a caller's limits hold over all workers from now on."""
        row = self._counters.row(f"key {caller.id}")
        caller.allowance = SharedAllowance(self, row, limits=caller.record.limits, now_ms=now_ms)
        self.publish(caller, month)

    def forget(self, caller: KeyState) -> None:
        """Drop a key that was removed."""
        row = self._row(caller)
        if self._budgeted.pop(caller.id, None) is not None:
            del self._published[caller.id]
            for what in (_MONTH, _RESERVED, _USD, _USD_RESERVED):
                row.put(what, 0)
        row.release()

    def spent(self, caller: KeyState, month: Mapping[str, int]) -> tuple[int, int]:
        """Return the tokens that a key has spent, and how many of them are only reserved, all workers' together."""
        row = self._row(caller)
        return month.get(caller.id, 0) + row.others(_MONTH), caller.reserved + row.others(_RESERVED)

    def spent_picousd(self, caller: KeyState, month: Mapping[str, int]) -> tuple[int, int]:
        """Return the same of its dollars: what others charged is rounded up, what they reserved down."""
        row = self._row(caller)
        charged = month.get(usd_place(caller.id), 0) + row.others(_USD) * PICOUSD_PER_MICROUSD
        return charged, caller.reserved_picousd + row.others(_USD_RESERVED) * PICOUSD_PER_MICROUSD

    def tick(self, month: Mapping[str, int], now_ms: int) -> None:
        """Publish the use of the keys that have some; called twice a second."""
        for allowance in list(self.active):
            if not allowance.fade(now_ms):
                del self.active[allowance]
        for caller in self._budgeted.values():
            self.publish(caller, month)

    def publish(self, caller: KeyState, month: Mapping[str, int]) -> None:
        """Publish what a key has spent here, if that changed: before the next request is admitted, and twice a second."""
        picousd = month.get(usd_place(caller.id), 0)
        spent = (month.get(caller.id, 0), caller.reserved, picousd, caller.reserved_picousd)
        if spent == self._published.get(caller.id, _NOTHING):
            return
        self._budgeted[caller.id], self._published[caller.id] = caller, spent
        row = self._row(caller)
        row.put(_MONTH, spent[0])
        row.put(_RESERVED, spent[1])
        row.put(_USD, -(-picousd // PICOUSD_PER_MICROUSD))
        row.put(_USD_RESERVED, caller.reserved_picousd // PICOUSD_PER_MICROUSD)

    @staticmethod
    def _row(caller: KeyState) -> CounterRow:
        assert isinstance(caller.allowance, SharedAllowance)
        return caller.allowance.row
