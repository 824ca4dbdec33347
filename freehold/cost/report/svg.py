"""An SVG document made fit to stand inside an HTML page: its colours are the page's, its ids are its own.

It does not parse SVG: it relies on what matplotlib writes (ids, `url(#…)` and `href="#…"` in double quotes).
"""

import re
from collections.abc import Mapping
from html import escape

_HEAD = re.compile(r"^.*?(?=<svg\b)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_OPEN = re.compile(r"<svg\b[^>]*>")
_VIEW_BOX = re.compile(r'viewBox="([^"]*)"')
_ID = re.compile(r'\sid="([^"]+)"')
_USE = re.compile(r'(url\(#|xlink:href="#)')
_COLOUR = re.compile(r"#0[0-9a-f]{5}\b")
_FONT = re.compile(r"font: ([0-9.]+)px [^;\"]*")


def inlined(document: str, *, name: str, alt: str, colours: Mapping[str, str]) -> str:
    """Return the `<svg>` element of a document, labelled `alt`, ids prefixed with `name`, colours by `colours`.

    `name` is letters, digits and `-`. `colours` maps `#rrggbb` as drawn to what to write instead.
    """
    body = _COMMENT.sub("", _METADATA.sub("", _HEAD.sub("", document)))
    box = _VIEW_BOX.search(body)
    assert box, "no viewBox"
    opened = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" '
        f'role="img" aria-label="{escape(alt)}">'
    )
    used = set(re.findall(r"#([A-Za-z0-9_-]+)[)\"]", body))
    body = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = _USE.sub(rf"\g<1>{name}-", body)
    body = _COLOUR.sub(lambda found: colours.get(found[0], found[0]), body)
    body = _FONT.sub(r"font-size: \1px", body)
    return _OPEN.sub(lambda _: opened, body, count=1).strip()
