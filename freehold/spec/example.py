"""The commented freehold.yaml that `freehold init` writes: one small real model on one machine.

The text lives in `example.yaml` beside this file, so that an editor sees YAML; only the schema's place is filled in.
"""

from functools import cache
from importlib import resources

EXAMPLE_NAME = "freehold.yaml"
"""The name that every command looks for in the current directory."""
SCHEMA_NAME = "freehold.schema.json"
"""The name of the published JSON schema, in `docs/` and beside a file that `freehold init` wrote."""


def example_text(*, schema: str = f"./{SCHEMA_NAME}") -> str:
    """Return the example; `schema` is where editors find the JSON schema, relative to the file, or a URL."""
    return _template().replace("@SCHEMA@", schema)


@cache
def _template() -> str:
    return (resources.files("freehold.spec") / "example.yaml").read_text(encoding="utf-8")
