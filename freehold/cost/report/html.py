"""A plan as one HTML file that needs nothing else: no script, no font, no picture and no request to anywhere.

The verdict is on top. Every text from outside is escaped by the template; only the plots' SVG, in which matplotlib has
escaped the texts, goes in as it is. How it looks stands in plan.css, what is where in plan.html.j2; nothing is computed.
"""

from importlib.resources import files

from markupsafe import Markup

from freehold.cost.model.result import PlanResult
from freehold.cost.report import outline
from freehold.cost.report.content import content
from freehold.cost.report.plots import plots
from freehold.cost.report.templates import render

WEAK_MOST = 100
"""Sources to check that are named. Our own choice: a page has room for all of any plan so far."""


def to_html(result: PlanResult) -> str:
    """Return the page: UTF-8 text of some 100 to 200 kB. Takes about a second, most of it for the plots."""
    style = (files(__package__) / "plan.css").read_text(encoding="utf-8")
    shown = {
        **content(result, weak_most=WEAK_MOST),
        "style": Markup(style),  # noqa: S704  our own file
        "plots": [(plot, Markup(plot.svg)) for plot in plots(result)],  # noqa: S704  escaped by matplotlib
        "sources": outline.sources_of(result.options),
    }
    return render(__package__, "plan.html.j2", shown)
