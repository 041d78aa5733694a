"""What all parts of a scenario share: checks, numbers and words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from moesim.types import DTYPE_BYTES

_CONFIG = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def _no_none_word(value: Any) -> Any:
    """`none` and null are the same."""
    return None if value == "none" else value


def list_to_tuple(value: Any) -> Any:
    """Strict tuples are what YAML writes as lists."""
    return tuple(value) if isinstance(value, list) else value


NoneWord = BeforeValidator(_no_none_word, json_schema_input_type=Any)
Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4", "int4"]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
Pair = Annotated[tuple[float, float], BeforeValidator(list_to_tuple)]
assert set(Dtype.__args__) == set(DTYPE_BYTES)  # type: ignore[attr-defined]


class Part(BaseModel):
    """A mapping of a scenario: unknown fields, other types and infinite numbers are refused."""

    model_config = _CONFIG


def described(default: Any, text: str, **bounds: Any) -> Any:
    """A field with its default (... = none), what it means, and the bounds of its value."""
    return Field(default=default, description=text, **bounds)
