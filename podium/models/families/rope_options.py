"""Rotary positions in config.json: one set for all layers, or one per kind of layer, by old keys and new."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from podium.errors import UserError
from podium.models.config import RopeScaling
from podium.models.families.options import Options

_MSCALES = ("mscale", "mscale_all_dim")
_FIELDS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}
        | {"truncate", *_MSCALES}
    ),
}
# What of these RopeScaling calls by the same name.
_VALUES = frozenset().union(*_FIELDS.values()) - {"original_max_position_embeddings"}


class Rope(NamedTuple):
    """Theta, and how frequencies are stretched."""

    theta: float
    scaling: RopeScaling | None


def read_rope(options: Options, max_position: int) -> Rope:
    """Read theta and scaling from the newer `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    given = options.mapping("rope_scaling") or options.mapping("rope_parameters")
    return _parse(options, given, _theta(options, "rope_theta"), max_position)


def read_layered_rope(options: Options, max_position: int) -> tuple[Rope, Rope]:
    """Read those of full and those of sliding layers, from `rope_parameters` per kind or the older flat keys."""
    nested = options.mapping("rope_parameters")
    kinds = ("full_attention", "sliding_attention")
    if set(nested) - set(kinds):
        options.refuse("rope_parameters", f"write one object each for {' and '.join(kinds)}")
    inner = Options(nested, f"{options.source}: rope_parameters", {})
    full, sliding = (inner.mapping(kind) for kind in kinds)
    full |= options.mapping("rope_scaling")
    result = (
        _parse(options, full, _theta(options, "rope_theta"), max_position),
        _parse(options, sliding, _theta(options, "rope_local_base_freq"), max_position),
    )
    if result[1].scaling is not None:
        options.refuse("rope_parameters", "use a model whose sliding layers have rope_type default")
    return result


def _theta(options: Options, key: str) -> float:
    """The base of the frequencies; from 1 down, later pairs would turn as fast as the first, or faster."""
    return options.number(key, above=1.0)


def _parse(options: Options, given: dict[str, Any], theta: float, max_position: int) -> Rope:
    """Theta beside the rope options stands in for one among them."""
    source = options.source
    # A zero among the last two stands for their absence (see `rope.py`).
    given = {key: value for key, value in given.items() if value is not None and (value != 0 or key not in _MSCALES)}
    inner = Options(given, f"{source}: rope options", {})
    theta = _theta(inner, "rope_theta") if "rope_theta" in given else theta
    kind = given.get("rope_type", given.get("type", "default"))
    partial = given.get("partial_rotary_factor", options.get("partial_rotary_factor"))
    # A value beside the rope options wins over one among them, as in transformers.
    outer = options.optional_size("original_max_position_embeddings")
    if partial not in (None, 1, 1.0):
        raise UserError(f"{source}: partial_rotary_factor={partial} is not supported; use a model with 1.0")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UserError(f"{source}: rope_type {kind!r} is not supported; use a model with {', '.join(_FIELDS)}")
    fields = given.keys() - {"rope_theta", "type", "rope_type", "partial_rotary_factor"}
    unknown = sorted(fields - _FIELDS[kind])
    if unknown:
        raise UserError(f"{source}: rope option {unknown[0]}={given[unknown[0]]!r} is none of {kind}; remove it")
    if kind == "default":
        return Rope(theta, None)
    required = {"factor"} | ({"low_freq_factor", "high_freq_factor"} if kind == "llama3" else set())
    absent = sorted(required - fields)
    if absent:
        raise UserError(f"{source}: rope_type {kind} needs {absent[0]}; write it beside rope_type")
    original = inner.optional_size("original_max_position_embeddings")
    if "original_max_position_embeddings" in _FIELDS[kind]:
        original = outer or original
    values: dict[str, Any] = {
        key: inner.flag(key) if key == "truncate" else inner.number(key) for key in fields & _VALUES
    }
    scaling = RopeScaling(kind=kind, original_max_position=original or max_position, **values)
    if kind == "llama3" and scaling.low_freq_factor >= scaling.high_freq_factor:
        raise UserError(
            f"{source}: low_freq_factor={scaling.low_freq_factor:g} is not supported; "
            f"write less than the high_freq_factor of {scaling.high_freq_factor:g}"
        )
    return Rope(theta, scaling)


def rope_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Give `rope_scaling`, which old and new transformers read."""
    if scaling is None:
        return None
    values = {"original_max_position_embeddings": scaling.original_max_position, **vars(scaling)}
    kept = {key: values[key] for key in sorted(_FIELDS[scaling.kind]) if values[key] is not None}
    return {"rope_type": scaling.kind, **kept}
