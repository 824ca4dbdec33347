"""What every section of freehold.yaml has in common: how strictly it is read. It knows no key; the sections are in `model`."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """No unknown keys, no guessing of types, no change afterwards."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
