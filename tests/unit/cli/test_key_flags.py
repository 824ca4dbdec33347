"""The flags of `freehold key create`: read as people write them, every mistake at once."""

import pytest

from freehold.cli.serve.key_flags import Wanted, read_flags
from freehold.gateway.callers.keys import KeyLimits

NOW_S = 1_800_000_000.0  # 2027-01-15 08:00 UTC
NONE = dict.fromkeys(
    (
        "rpm",
        "tpm",
        "concurrency",
        "monthly_tokens",
        "monthly_usd",
        "fallback",
        "models",
        "priority",
        "weight",
        "timeout",
        "expires",
    )
)


def read(name: str = "ci", **flags: str) -> Wanted | list[str]:
    found = read_flags(name, NONE | flags, models=("llama", "qwen"), taken={"taken"}, wall_s=NOW_S)
    return found if isinstance(found, Wanted) else [str(problem) for problem in found]


def test_no_flags_are_no_limits():
    assert read() == Wanted(name="ci", limits=KeyLimits(), expires_s=None)


def test_every_flag_is_read():
    wanted = read(rpm="60", tpm="40k", concurrency="4", monthly_tokens="1.5B", models="qwen, llama,qwen",
                  priority="-5", weight="3", timeout="1m30s", expires="90d",
                  monthly_usd="12.5", fallback="never")  # fmt: skip
    assert wanted == Wanted(
        name="ci",
        limits=KeyLimits(requests_per_minute=60, tokens_per_minute=40_000, concurrency=4, monthly_tokens=1_500_000_000,
                      monthly_microusd=12_500_000, fallback=False, models=("qwen", "llama"), priority=-5, weight=3, timeout_s=90.0),
        expires_s=int(NOW_S) + 90 * 86_400,
    )  # fmt: skip


def test_every_mistake_is_told_at_once():
    told = read("taken", rpm="0", tpm="many", concurrency="1.5", monthly_tokens="-1", models="lama", priority="high",
                weight="101", timeout="-1s", expires="soon")  # fmt: skip
    assert isinstance(told, list)
    assert [line.partition(":")[0] for line in told] == [
        "NAME", "--rpm", "--tpm", "--concurrency", "--monthly-tokens", "--weight", "--models", "--priority",
        "--timeout", "--expires",
    ]  # fmt: skip


# fmt: off
WRONG = {
    "name taken": ({"name": "taken"}, "NAME: there is a key 'taken' (revoke that one first, or choose another name)"),
    "no name": ({"name": " "}, "NAME: must be 1 to 64 visible characters (name the person or program that will use the key)"),
    "name with a line break": ({"name": "a\nb"}, "NAME: must be 1 to 64 visible characters"),
    "name too long": ({"name": "a" * 65}, "NAME: must be 1 to 64 visible characters"),
    "no requests": ({"rpm": "0"}, "--rpm: must be between 1 and 1T, not 0 (leave the flag out for no limit)"),
    "too many": ({"tpm": "2T"}, "--tpm: must be between 1 and 1T"),
    "half a request": ({"rpm": "0.5"}, "--rpm: must be a whole number"),
    "weight of nothing": ({"weight": "0"}, "--weight: must be between 1 and 100, not 0"),
    "no dollars": ({"monthly_usd": "0.00"}, "--monthly-usd: must be US dollars above 0 with at most six places, not '0.00'"),
    "dollars with a sign": ({"monthly_usd": "$5"}, "--monthly-usd: must be US dollars above 0"),
    "dollars too exact": ({"monthly_usd": "1.0000001"}, "--monthly-usd: must be US dollars above 0"),
    "fallback maybe": ({"fallback": "no"}, "--fallback: must be allow or never, not 'no'"),
    "a mistyped model": ({"models": "lama"}, "--models: there is no model 'lama' (did you mean 'llama'?)"),
    "an empty model": ({"models": "llama,"}, "--models: there is no model '' (known: llama, qwen)"),
    "priority beyond": ({"priority": "20"}, "--priority: must be a whole number from -20 to 19, not '20' (lower is served first"),
    "priority in other digits": ({"priority": "\u0663"}, "--priority: must be a whole number"),
    "a timeout of nothing": ({"timeout": "0s"}, "--timeout: must be above 0 and at most 24h, not 0s"),
    "a timeout of days": ({"timeout": "2d"}, "--timeout: must be above 0 and at most 24h, not 2d"),
    "a bare number of days": ({"expires": "90"}, "--expires: must be a duration such as 12h or 90d, or a day as 2027-01-31"),
    "a day that is over": ({"expires": "2027-01-15"}, "--expires: must lie in the next ten years"),
    "no time at all": ({"expires": "0s"}, "--expires: must lie in the next ten years"),
    "a day that is none": ({"expires": "2027-02-30"}, "--expires: must be a duration"),
    "a century": ({"expires": "36500d"}, "--expires: must lie in the next ten years"),
}
# fmt: on


@pytest.mark.parametrize(("flags", "words"), WRONG.values(), ids=WRONG)
def test_a_mistake_says_what_to_write(flags: dict[str, str], words: str):
    told = read(**flags)
    assert isinstance(told, list)
    assert len(told) == 1
    assert told[0].startswith(words)


def test_a_day_ends_in_utc():
    wanted = read(expires="2027-01-16")
    assert isinstance(wanted, Wanted)
    assert wanted.expires_s == 1_800_057_600
