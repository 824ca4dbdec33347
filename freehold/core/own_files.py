"""YAML files of the package itself, which stand beside the code that reads them, as the types that the code gives.

libyaml reads them, some ten times faster than the parser of `places`, which knows the place of each value and reads what a
user wrote. Scalars are those of YAML 1.2, as there: `off` is a text. A file that is not as it must be is our own mistake: it raises.
"""

import re
from importlib.resources import files
from typing import ClassVar, TypeVar

import msgspec
import yaml

_T = TypeVar("_T")


class _OwnLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The scalars of YAML 1.2; PyYAML may have been built without libyaml."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


_TAG = "tag:yaml.org,2002:"  # YAML 1.2.2, chapter 10
for _kind, _form, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", ["n", "~", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?", "-+0123456789"),
):
    _OwnLoader.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_form})$"), list(_first))


def read_own(package: str, name: str, kind: type[_T]) -> _T:
    """Return what `name` in the folder of `package` holds."""
    text = (files(package) / name).read_text("utf-8")
    return msgspec.convert(yaml.load(text, Loader=_OwnLoader), kind)  # noqa: S506 (a safe loader)
