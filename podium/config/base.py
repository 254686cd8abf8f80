"""What every section of the configuration shares: strict, frozen, and with numbers that are numbers."""

from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Refuse unknown keys, NaN and infinity; never change after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=False)


def fail(field: str, reason: str) -> NoReturn:
    """Reject `field` of the section being validated; `reason` says what to write instead."""
    raise PydanticCustomError("podium", "{reason}", {"field": field, "reason": reason})


def _not_bool(value: Any) -> Any:
    """Refuse true and false where a number is due: pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("podium", "{reason}", {"reason": f"write a number, not {str(value).lower()}"})
    return value


# The limits stand inside the validator: around it, pydantic leaves them out of the JSON Schema.
_Strict = BeforeValidator(_not_bool)
Int = Annotated[int, _Strict]
Float = Annotated[float, _Strict]
Positive = Annotated[int, Field(gt=0), _Strict]
Count = Annotated[int, Field(ge=0), _Strict]
Seed = Annotated[int, Field(ge=0, lt=2**32), _Strict]
PositiveFloat = Annotated[float, Field(gt=0), _Strict]
NonNegative = Annotated[float, Field(ge=0), _Strict]
Fraction = Annotated[float, Field(ge=0, le=1), _Strict]
OpenFraction = Annotated[float, Field(gt=0, lt=1), _Strict]
TopP = Annotated[float, Field(gt=0, le=1), _Strict]
AxisSize = Annotated[int, Field(ge=-1), _Strict]
