"""Plans made by hand for the tests of reports: each kind of verdict, and what makes a report break.

The figures are near research/cost.md's, so that a screenshot looks like a real one; no test relies on them being right.
"""

from dataclasses import replace

from freehold.cost.model.result import (
    BreakEven,
    Curve,
    Influence,
    Kind,
    Percentiles,
    PlanOption,
    PlanResult,
    PlanVerdict,
    Rule,
    TurningPoint,
    Word,
)

HOSTILE = '$x_{$<script>alert(1)</script>|[red]x[/red]\x1b[31m`*_\u202e&"'
API_ID = "api-openai-gpt-6-terra"
RENT_ID = "rent-runpod-h100-sxm-1"
BUY_ID = "buy-h100-sxm-8"


def around(mid: float, part: float = 0.15) -> Percentiles:
    return Percentiles(p10=mid * (1 - part), p50=mid, p90=mid * (1 + 1.3 * part))


def api(
    model: str = "gpt-6-terra", usd: float = 1800.0, *, today: bool = False, provider: str = "openai"
) -> PlanOption:
    return PlanOption(
        id=f"api-{provider}-{model}",
        kind="api",
        provider=provider,
        gpu="",
        count=0,
        model=model,
        engine="",
        quant="",
        replicas=0,
        usd_per_month=Percentiles(p10=usd, p50=usd, p90=usd),
        usd_per_million_tokens=Percentiles(p10=usd / 900, p50=usd / 900, p90=usd / 900),
        lines={"api_tokens": Percentiles(p10=usd, p50=usd, p90=usd)},
        utilisation=None,
        capital_usd=None,
        incomplete=(),
        paid_today=today,
        sources=(f"{provider} {model}: genai-prices 0.2.3 (2026-11-01, read)",),
    )


SHARES = {
    "rent": {"gpu_rental": 0.74, "staff": 0.22, "storage": 0.03, "egress": 0.01},
    "buy": {
        "gpus": 0.34,
        "chassis": 0.12,
        "host_ram": 0.06,
        "network": 0.02,
        "storage": 0.01,
        "colocation": 0.12,
        "electricity": 0.06,
        "capital": 0.09,
        "maintenance": 0.05,
        "staff": 0.12,
        "failures": 0.01,
    },
}


def owned(kind: Kind, name: str, usd: float, *, gpu: str = "h100-sxm", count: int = 1) -> PlanOption:
    return PlanOption(
        id=f"{kind}-{name}-{gpu}-{count}" if kind == "rent" else f"{kind}-{gpu}-{count}",
        kind=kind,
        provider=name,
        gpu=gpu,
        count=count,
        model="llama-3.1-8b",
        engine="vllm",
        quant="fp8",
        replicas=count,
        usd_per_month=around(usd),
        usd_per_million_tokens=around(usd / 900),
        lines={line: around(usd * share, 0.2) for line, share in SHARES[kind].items()},
        utilisation=0.034 / count,
        capital_usd=around(usd * 22, 0.2) if kind == "buy" else None,
        incomplete=(),
        terms="on-demand" if kind == "rent" else "36 months",
        sources=(
            f"{gpu} per GPU-hour: {name} price list (2026-10-24, read)",
            "residual value: broker's blog (2026-03-02, secondary)",
            "host power: our own note (2026-11-02, memory)",
        ),
    )


def lacking(option: PlanOption, *what: str) -> PlanOption:
    return replace(option, incomplete=what, lines=dict(list(option.lines.items())[1:]))


def options() -> tuple[PlanOption, ...]:
    found = (
        api("gpt-6-luna", 180.0),
        api("claude-haiku-5-5", 184.0, provider="anthropic"),
        api("gpt-oss-120b", 234.0, provider="groq"),
        api("gpt-6-terra", 1800.0, today=True),
        owned("rent", "runpod", 2613.0),
        owned("rent", "lambda", 2911.0),
        owned("rent", "aws", 5022.0, gpu="l40s", count=2),
        owned("rent", "coreweave", 5400.0),
        owned("buy", "colocation", 17210.0, count=8),
        owned("buy", "colocation", 9800.0, gpu="l40s", count=8),
    )
    cheapest_first = sorted(found, key=lambda option: option.usd_per_month.p50)
    return (*cheapest_first, lacking(owned("rent", "newcloud", 900.0, gpu="b200"), "gpu_rental"))


def break_evens() -> tuple[BreakEven, ...]:
    return (
        BreakEven(
            option=RENT_ID,
            against=API_ID,
            tokens_per_month=around(1.31e9),
            utilisation=around(0.05),
            payback_month=None,
            chance_cheaper=0.04,
        ),
        BreakEven(
            option=BUY_ID,
            against=API_ID,
            tokens_per_month=Percentiles(p10=6.1e9, p50=8.6e9, p90=float("inf")),
            utilisation=around(0.33),
            payback_month=Percentiles(p10=19.2, p50=27.4, p90=float("inf")),
            chance_cheaper=0.0003,
        ),
        BreakEven(
            option=RENT_ID,
            against="api-openai-gpt-6-luna",
            tokens_per_month=None,
            utilisation=None,
            payback_month=None,
            chance_cheaper=0.0,
        ),
    )


def tornado() -> tuple[Influence, ...]:
    rows = (
        ("rental_usd_per_gpu_hour", 1.7, 4.0, "USD per GPU-hour", -200.0, 1920.0, False),
        ("staff_fte", 0.02, 0.3, "FTE", 300.0, 2700.0, False),
        ("staff_usd_per_year", 160000, 300000, "USD a year", 600.0, 1050.0, False),
        ("tokens_per_s_per_gpu", 4100, 6300, "tokens/s", 700.0, 1100.0, False),
        ("power_usd_per_kwh", 0.07, 0.2, "USD per kWh", 811.0, 816.0, True),
    )
    return tuple(
        Influence(
            name=name,
            low_value=low,
            high_value=high,
            unit=unit,
            usd_per_month_at_low=at_low,
            usd_per_month_at_high=at_high,
            asked=asked,
        )
        for name, low, high, unit, at_low, at_high, asked in rows
    )


def curves() -> tuple[Curve, ...]:
    traffic = tuple(1e8 * 10 ** (step / 10) for step in range(26))
    return (
        Curve(option=API_ID, x=traffic, usd_per_month=tuple(2e-6 * each for each in traffic)),
        Curve(
            option=RENT_ID,
            x=traffic,
            usd_per_month=tuple(700 + 1913 * (1 + each // 2.6e10) for each in traffic),
        ),
        Curve(option=BUY_ID, x=traffic, usd_per_month=tuple(17210.0 for _ in traffic)),
    )


def sensitivity() -> tuple[Curve, ...]:
    prices = tuple(1.0 + step / 5 for step in range(21))
    staff = tuple(step / 20 for step in range(21))
    return (
        Curve(
            option=RENT_ID,
            x=prices,
            usd_per_month=tuple(700 + 730 * each for each in prices),
            over="rental_usd_per_gpu_hour",
        ),
        Curve(
            option=BUY_ID,
            x=prices,
            usd_per_month=tuple(17210.0 for _ in prices),
            over="rental_usd_per_gpu_hour",
        ),
        Curve(
            option=RENT_ID,
            x=staff,
            usd_per_month=tuple(1964 + 18333 * each for each in staff),
            over="staff_fte",
        ),
        Curve(
            option=BUY_ID,
            x=staff,
            usd_per_month=tuple(15100 + 18333 * each for each in staff),
            over="staff_fte",
        ),
    )


def rules() -> tuple[Rule, ...]:
    return (
        Rule(
            claim="Rent below 200M tokens a month",
            verdict="does not hold",
            computed="At 200M tokens the API costs 400 USD a month, the cheapest rental 2,613 (2,221-3,123): the API is cheaper below 1.31B tokens a month.",
            source="a vendor's guide (2026-10-01, read)",
        ),
        Rule(
            claim="Buy only above 65% utilisation",
            verdict="depends",
            computed="Against your rental at 2.69 USD per GPU-hour owning needs 101% (59%-163%); 65% is right at 4.52 USD per GPU-hour.",
            source="a vendor's guide (2026-10-01, read)",
        ),
        Rule(
            claim="An 8-GPU node costs more than 200,000 USD",
            verdict="holds",
            computed="Your configuration costs 378,600 USD (303,000-477,000).",
            source="a vendor's guide (2026-10-01, read)",
        ),
        Rule(
            claim="A node draws 12-15 kW",
            verdict="unknown",
            computed="No node draw is known for this GPU.",
            source="",
        ),
    )


def verdict(word: Word = "stay") -> PlanVerdict:
    advised = {
        "stay": API_ID,
        "rent": RENT_ID,
        "buy": BUY_ID,
        "change-api": "api-openai-gpt-6-luna",
        "undecided": "",
    }
    headline = {
        "stay": "Stay on openai gpt-6-terra: owning would cost 800 USD a month more.",
        "rent": "Rent one H100 at RunPod: it saves 800 USD a month.",
        "buy": "Buy one 8-GPU H100 node: it pays back in month 27.",
        "change-api": "Change to gpt-6-luna: a tenth of the price. It is another model: test it first.",
        "undecided": "Undecided: renting and the API are within each other's range.",
    }
    return PlanVerdict(
        word=word,
        option=advised[word],
        confidence=0.41 if word == "undecided" else 0.93,
        confidence_word="low" if word == "undecided" else "high",
        headline=headline[word],
        text=(
            "At 900M tokens a month the API costs 1,800 USD. One H100 serves this traffic at 3% of its capacity, so "
            "nearly all of what it costs is idle. Quality was not compared."
        ),
        would_change_it=(
            TurningPoint(what="a rental below 1.50 USD per GPU-hour with no extra staff", to="rent"),
            TurningPoint(what="traffic above 1.31B tokens a month", to="rent"),
        ),
        ask_first=(
            "--rental-usd-per-gpu-hour: what were you quoted for one H100 for an hour?",
            "--staff-fte: how much of an engineer would run it?",
            "--power-usd-per-kwh",
        ),
        next_command="freehold plan --tokens-per-month 900M --model llama-3.1-8b --rental-usd-per-gpu-hour 2.10",
        doubts=("residual value of an H100 after 36 months: three quotes, all second-hand",),
    )


def assumptions() -> tuple[dict[str, str | float | bool], ...]:
    rows = (
        ("staff_fte", 0.02, 0.08, 0.3, False, "our own estimate", "memory"),
        ("power_usd_per_kwh", 0.12, 0.12, 0.12, True, "you", "user"),
        ("residual_fraction", 0.05, 0.2, 0.35, False, "broker's blog", "secondary"),
    )
    return tuple(
        {
            "name": name,
            "low": low,
            "mid": mid,
            "high": high,
            "asked": asked,
            "source": source,
            "as_of": "2026-10-24",
            "verified": how,
        }
        for name, low, mid, high, asked, source, how in rows
    )


def plan(word: Word = "stay") -> PlanResult:
    """Return an ordinary plan with this verdict."""
    return PlanResult(
        version=1,
        today="2026-11-27",
        summary={
            "tokens_per_month": 900e6,
            "input_tokens_per_month": 675e6,
            "output_tokens_per_month": 225e6,
            "cached_share": 0.2,
            "peak_over_mean": 2.5,
            "model": "llama-3.1-8b",
            "slo_ttft_s": 0.5,
            "slo_itl_s": 0.05,
            "traffic_source": "flags",
        },
        options=options(),
        break_even=break_evens(),
        tornado=tornado(),
        sensitivity=sensitivity(),
        curves=curves(),
        rules=rules(),
        verdict=verdict(word),
        assumptions=assumptions(),
        notes=(
            "Output is taken as a quarter of the tokens, since nobody said.",
            "Falling API prices are not modelled.",
        ),
    )


def crowded() -> PlanResult:
    """Return a plan with 60 options, 17 wordy rules, and more notes, warnings and doubts than anybody reads."""
    more = [owned("rent", f"provider-{index:02d}", 2500.0 + 40 * index) for index in range(40)]
    more += [
        owned("buy", "on-premises", 12000.0 + 100 * index, gpu=f"card-{index}", count=8)
        for index in range(10)
    ]
    warned = [replace(option, warnings=("a marketplace: hosts differ in reliability",)) for option in more]
    base = plan()
    wordy = (
        "A number of 1,234 USD a month (1,000-1,500) beside another of 65%, and then what follows from both. "
        * 4
    )
    return replace(
        base,
        options=(*options(), *warned)[:60],
        rules=tuple(
            Rule(claim=f"Claim number {index}", verdict="holds", computed=wordy, source="")
            for index in range(17)
        ),
        notes=tuple(f"Note number {index} on what was assumed." for index in range(12)),
        tornado=base.tornado * 4,
        verdict=replace(base.verdict, doubts=tuple(f"doubt number {index}: {wordy}" for index in range(12))),
    )


def long_names() -> PlanResult:
    """Return a plan whose names have no blank to break at and whose sums have nine digits."""
    long = "aproviderwithanexceptionallylongname" * 3
    option = replace(owned("rent", long, 123_456_789.0), id="long", model=long, terms=long)
    base = plan()
    return replace(
        base,
        options=(option, *base.options),
        summary={**base.summary, "model": long},
        break_even=(replace(base.break_even[0], option="long"), *base.break_even),
        curves=(*base.curves, replace(base.curves[1], option="long")),
    )


def hostile() -> PlanResult:
    """Return a plan in which every text from outside tries to be markup."""
    base = plan()
    bad = replace(
        base.options[0],
        provider=HOSTILE,
        model=HOSTILE,
        terms=HOSTILE,
        sources=(f"{HOSTILE}: javascript:alert(1) (2020-01-01, memory)",),
        warnings=(HOSTILE,),
    )
    bad_rent = replace(
        owned("rent", HOSTILE, 2000.0),
        id=HOSTILE,
        gpu=HOSTILE,
        lines={HOSTILE: around(5.0), "staff": around(9.0)},
    )
    unpriced = lacking(owned("buy", HOSTILE, 5.0, gpu=HOSTILE), HOSTILE)
    return replace(
        base,
        options=(bad, bad_rent, *base.options[1:], unpriced),
        summary={"model": HOSTILE, HOSTILE: HOSTILE},
        break_even=(replace(base.break_even[0], option=HOSTILE, against=HOSTILE), *base.break_even),
        tornado=(replace(base.tornado[0], name=HOSTILE, unit=HOSTILE), *base.tornado),
        curves=(*base.curves, replace(base.curves[1], option=HOSTILE)),
        sensitivity=(*base.sensitivity, replace(base.sensitivity[0], option=HOSTILE)),
        rules=(Rule(claim=HOSTILE, verdict="depends", computed=HOSTILE, source=HOSTILE),),
        verdict=replace(
            base.verdict,
            headline=HOSTILE,
            text=HOSTILE,
            next_command=HOSTILE,
            ask_first=(HOSTILE,),
            doubts=(HOSTILE,),
            would_change_it=(TurningPoint(what=HOSTILE, to=HOSTILE),),
        ),
        assumptions=(
            {"name": HOSTILE, "low": 1.0, "mid": 1.0, "high": 1.0, "asked": True, "source": HOSTILE},
        ),
        notes=(HOSTILE,),
    )


def no_rentals() -> PlanResult:
    """Return a plan for which nobody rents the GPU out."""
    base = plan()
    return replace(
        base,
        options=tuple(option for option in base.options if option.kind != "rent"),
        break_even=tuple(each for each in base.break_even if each.option != RENT_ID),
        curves=tuple(each for each in base.curves if each.option != RENT_ID),
        sensitivity=tuple(each for each in base.sensitivity if each.option != RENT_ID),
    )


def only_incomplete() -> PlanResult:
    """Return a plan in which nothing has a whole price, so that there is nothing to plot and nothing to advise."""
    base = plan("undecided")
    return replace(
        base,
        options=tuple(lacking(option, "gpu_rental") for option in base.options),
        break_even=(),
        tornado=(),
        sensitivity=(),
        curves=(),
        rules=(),
        notes=(),
        assumptions=(),
    )


def never() -> PlanResult:
    """Return a plan in which owning pays at no traffic."""
    base = plan()
    return replace(
        base,
        break_even=tuple(
            replace(each, tokens_per_month=None, utilisation=None, payback_month=None)
            for each in base.break_even
        ),
    )


EVERY = {
    **{word: (lambda word=word: plan(word)) for word in ("stay", "rent", "buy", "change-api", "undecided")},
    "crowded": crowded,
    "long names": long_names,
    "hostile": hostile,
    "no rentals": no_rentals,
    "only incomplete": only_incomplete,
    "never": never,
}
"""Every sample by what it is for."""
