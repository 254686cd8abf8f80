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


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool)]
Positive = Annotated[Int, Field(gt=0)]
Count = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegative = Annotated[Float, Field(ge=0)]
Fraction = Annotated[Float, Field(ge=0, le=1)]
