"""What every section of the configuration shares: strict, frozen, and with numbers that are numbers."""

import inspect
import re
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """Refuse unknown keys, NaN and infinity; never change after validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=False)


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a section's fields in the order for readers: its own first, then what it shares with others."""
    bases = [kind for kind in model.__mro__ if issubclass(kind, BaseModel)]
    names = dict.fromkeys(name for kind in bases for name in inspect.get_annotations(kind))
    return {name: model.model_fields[name] for name in names if name in model.model_fields}


def fail(field: str, reason: str) -> NoReturn:
    """Reject `field` of the section being validated; `reason` says what to write instead."""
    raise PydanticCustomError("podium", "{reason}", {"field": field, "reason": reason})


def _not_bool(value: Any) -> Any:
    """Refuse true and false where a number is due: pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool_as_number", "a number is due")
    return value


def _whole(value: Any) -> Any:
    """Read 1e3, which is text to YAML, where a whole number is due."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()) and float(value).is_integer():
        return int(float(value))
    return _not_bool(value)


def _exact(value: int) -> int:
    """Refuse whole numbers that a pipeline parameter would change: there each number is a double."""
    if abs(value) > _LARGEST:
        raise PydanticCustomError("podium", "{reason}", {"reason": f"write a whole number up to {_LARGEST}"})
    return value


_LARGEST = 2**53
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", re.ASCII)
# The limits stand inside the validators: around them, pydantic leaves them out of the JSON Schema.
_Strict = BeforeValidator(_not_bool)
_Whole = BeforeValidator(_whole)
_Exact = AfterValidator(_exact)
Float = Annotated[float, _Strict]
Positive = Annotated[int, Field(gt=0), _Whole, _Exact]
Count = Annotated[int, Field(ge=0), _Whole, _Exact]
Seed = Annotated[int, Field(ge=0, lt=2**32), _Whole]
PositiveFloat = Annotated[float, Field(gt=0), _Strict]
NonNegative = Annotated[float, Field(ge=0), _Strict]
Fraction = Annotated[float, Field(ge=0, le=1), _Strict]
OpenFraction = Annotated[float, Field(gt=0, lt=1), _Strict]
TopP = Annotated[float, Field(gt=0, le=1), _Strict]
AxisSize = Annotated[int, Field(ge=-1), _Whole, _Exact]
