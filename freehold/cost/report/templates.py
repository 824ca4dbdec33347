"""The one owner of jinja2: templates of a package, filled. What is where stands in the templates; nothing is computed.

HTML templates escape every text from outside by themselves; in Markdown the `md` filter does.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from freehold.cost.model.rounding import bound, chance
from freehold.cost.report import outline
from freehold.cost.report.clean import clean

_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$@]|(?<=[a-z]):(?=//)|(?<=www)\.)")
"""What starts markup, a link, a mention or a formula somewhere in GitHub Markdown."""
_START = re.compile(r"^(\d*)([.)](?=\s|$)|(?<!\d)[-+=](?=[\s=-]|$))")
"""What makes a list or a heading of a line that begins with it."""
_GAPS = re.compile(r"\n{3,}")


def render(package: str, name: str, content: dict[str, Any]) -> str:
    """Return the template of that name in a package, filled; `.html.j2` is escaped, `.md.j2` is not."""
    text = (files(package) / name).read_text(encoding="utf-8")
    if ".html" in name:
        return _environment(autoescape=True).from_string(text).render(content)
    return _GAPS.sub("\n\n", _environment(autoescape=False).from_string(text).render(content)).strip() + "\n"


@cache
def _environment(*, autoescape: bool) -> Environment:
    kind: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(autoescape=autoescape, **kind)  # noqa: S701 - Markdown is escaped by the filter md
    made.filters.update(
        linked=linked, clean=clean, md=escaped, code=code, points=points, chance=chance, bound=bound
    )
    made.filters["assumption"] = outline.assumption
    return made


def linked(text: str) -> Markup:
    """Return a text as HTML in which web addresses are links; everything is escaped, and no other scheme is a link."""
    parts = Markup()
    rest = 0
    for found in _URL.finditer(text):
        url = escape(found[0])
        link = Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, url)
        parts += escape(text[rest : found.start()]) + link
        rest = found.end()
    return parts + escape(text[rest:])


def escaped(text: str) -> str:
    """Return one line of text in which nothing is Markdown: for a paragraph, a list item or a cell of a table."""
    return _START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", clean(text)))


def points(texts: Iterable[str]) -> str:
    """Return a list of escaped texts; empty if there are none."""
    return "\n".join(f"- {escaped(text)}" for text in texts)


def code(text: str) -> str:
    """Return a text as inline code of Markdown, which may hold backticks itself; never for a cell of a table."""
    cleaned = clean(text)
    longest = max(map(len, re.findall(r"`+", cleaned)), default=0)
    fence, gap = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{gap}{cleaned}{gap}{fence}"
