"""What every section of freehold.yaml has in common: how strictly it is read. It knows no key; the sections are in `model`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """No unknown keys, no guessing of types, no change afterwards."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def text(**more: Any) -> Any:
    """Return a field for a text that may be left out; left out, it is empty."""
    return Field(default="", **more)
