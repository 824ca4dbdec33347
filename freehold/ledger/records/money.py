"""Money in whole pico-dollars, and as the text that stands in a record. Pure.

Prices have at most six places per million tokens, so the price of one token is a whole number of pico-dollars
(10^-12 USD), and every cost and every sum of costs is exact. It knows no prices and no other currency.
"""

from decimal import Decimal

PICOUSD_PER_USD = 10**12
"""Source: SI prefixes; a million tokens at a millionth of a dollar."""
_PLACES = 12  # Those of a pico-dollar.


def usd_text(cost_picousd: int) -> str:
    """Return a cost of at least zero in US dollars with exactly twelve places, `0.000153000000`.

    Twelve always, so that SQLite adds such texts up exactly: without their points they are whole pico-dollars.
    """
    return f"{cost_picousd // PICOUSD_PER_USD}.{cost_picousd % PICOUSD_PER_USD:012d}"


def picousd(usd: str | float | Decimal) -> int:
    """Return pico-dollars for US dollars as a person or a record wrote them; exact to twelve places."""
    return int(Decimal(str(usd)).scaleb(_PLACES))


def usd(cost_picousd: int) -> Decimal:
    """Return US dollars without needless zeros at the end; exact."""
    value = Decimal(cost_picousd).scaleb(-_PLACES)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()
