"""The gateway's settings as one frozen record, which is also the first message a gateway child gets.

Each is a bound: nothing in the gateway waits or grows without one.
"""

from collections.abc import Mapping

import msgspec

from freehold.gateway.answers.price import Price, price_from
from freehold.ledger.records.money import picousd
from freehold.ledger.spool import SPOOL_BYTES_MAX
from freehold.spec.gateway import GatewaySpec
from freehold.spec.model import Spec
from freehold.telemetry.logs import LevelName


class FallbackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One fallback provider, as `fallback:` in freehold.yaml describes it."""

    name: str
    url: str
    price: Price
    upstream_model: str = ""
    """Empty: the name that the client uses."""
    api_key: str = ""
    """Never logged or shown."""
    models: tuple[str, ...] = ()
    """Models whose requests may go there; empty: all models."""
    when: tuple[str, ...] = ("queue_full", "no_replica")
    share: float = 0.0
    shadow: float = 0.0
    max_concurrency: int = 32
    budget_picousd_per_day: int = 0


class AccessLogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the access log goes and how much of it is kept."""

    path: str = ""
    """Empty: there is none."""
    max_bytes: int = 32 * 1024 * 1024
    keep: int = 3


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files of the listener's TLS are, as `gateway.tls:` in freehold.yaml describes them."""

    certificate: str
    key: str
    client_ca: str = ""
    """Empty: clients are asked for no certificate."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one gateway process; times in seconds, sizes in bytes. freehold.yaml documents each."""

    queue_max_requests: int = 512
    queue_max_tokens: int = 1_000_000
    queue_max_wait_s: float = 20.0
    queue_overload_wait_s: float = 1.0
    max_body_bytes: int = 16 * 1024 * 1024
    upload_memory_bytes: int = 256 * 1024 * 1024
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    connect_s: float = 2.0
    first_byte_s: float = 600.0
    between_bytes_s: float = 600.0
    client_stall_s: float = 60.0
    total_s: float = 3600.0
    drain_grace_s: float = 30.0
    access_log: AccessLogSettings = AccessLogSettings()
    generation: int = 0
    """Which configuration these come from, counted by the parent."""
    workers: int = 1
    """How many gateway processes serve this address together."""
    worker: int = 0
    """Which of them this one is, from 0."""
    board_fd: int = -1
    """The memory that they share; -1: there is only one of them."""
    wake_fds: tuple[int, ...] = ()
    """Where each of them is woken."""
    spool_path: str = ""
    """Folder of the ledger's spool; empty: there is no ledger."""
    spool_max_bytes: int = SPOOL_BYTES_MAX
    keys_path: str = ""
    """The keys file; empty: no key is needed."""
    budgets_path: str = ""
    """Where what keys have spent of their monthly budgets is kept; not empty where `keys_path` is not."""
    tls: TlsSettings | None = None
    """None: plain HTTP."""
    fallbacks: tuple[FallbackSettings, ...] = ()
    """Fallback providers, in the order in which they are asked."""
    fallback_spent_path: str = ""
    """Where what they have cost today is kept; empty: nowhere, so that a restart begins at 0."""
    prices: dict[str, Price] = {}
    """What each model's own tokens are charged, by model; a model that is not here has no price."""
    share_cache: bool = False
    """True: a request may use what another key's request left in an engine's prefix cache."""
    metrics_open: bool = True
    """False: `/metrics` wants a key as well."""
    log_path: str = ""
    """Where the gateway's JSON log lines go; empty: standard error."""
    log_level: LevelName = "info"

    def part_of(self, whole: int) -> int:
        """Return this worker's part of a bound: all parts together are the whole, but each is at least 1."""
        return max(1, whole // self.workers + (self.worker < whole % self.workers))


def settings_from(
    spec: GatewaySpec, *, spool_path: str = "", log_path: str = "", access_path: str = ""
) -> Settings:
    """Return the settings that `gateway:` in freehold.yaml asks for."""
    times, access = spec.timeouts, spec.access_log
    return Settings(
        workers=spec.workers,
        queue_max_requests=spec.queue.max_requests,
        queue_max_tokens=spec.queue.max_tokens,
        queue_max_wait_s=spec.queue.max_wait,
        queue_overload_wait_s=spec.queue.overload_wait,
        max_body_bytes=spec.max_body,
        upload_memory_bytes=spec.upload_memory,
        header_s=times.header,
        body_s=times.body,
        idle_s=times.idle,
        connect_s=times.connect,
        first_byte_s=times.first_byte,
        between_bytes_s=times.between_bytes,
        client_stall_s=times.client_stall,
        total_s=times.total,
        drain_grace_s=spec.drain_grace,
        share_cache=spec.share_cache == "all",
        access_log=AccessLogSettings(
            path=access_path if access.enabled else "", max_bytes=access.max_size, keep=access.keep
        ),
        spool_path=spool_path,
        metrics_open=spec.address.loopback,
        log_path=log_path,
    )


def with_fallbacks(
    settings: Settings, spec: Spec, *, api_keys: Mapping[str, str], spent_path: str = ""
) -> Settings:
    """Return the settings with what `fallback:` and the models' `price:` ask for; `api_keys` are by fallback name."""
    fallbacks = tuple(
        FallbackSettings(
            name=each.name,
            url=each.url.rstrip("/"),
            price=price_from(each.price),
            upstream_model=each.upstream_model,
            api_key=api_keys.get(each.name, ""),
            models=each.models,
            when=each.when,
            share=each.share,
            shadow=each.shadow,
            # Every gateway process counts for itself, so each gets its part: together they keep to the whole.
            max_concurrency=max(1, each.max_concurrency // spec.gateway.workers),
            budget_picousd_per_day=picousd(each.budget_usd_per_day) // spec.gateway.workers,
        )
        for each in spec.fallback
    )
    prices = {model.name: price_from(model.price) for model in spec.models if model.price is not None}
    return msgspec.structs.replace(
        settings, fallbacks=fallbacks, prices=prices, fallback_spent_path=spent_path if fallbacks else ""
    )
