"""Rotary positions in config.json: one set for all layers, or one per kind of layer, in old spellings and new."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from podium.errors import UserError
from podium.models.config import RopeScaling
from podium.models.weights.options import Options

_FIELDS: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"}
        | {"mscale", "mscale_all_dim", "truncate"}
    ),
}


class Rope(NamedTuple):
    """Theta, and how frequencies are stretched."""

    theta: float
    scaling: RopeScaling | None


def read_rope(options: Options, max_position: int) -> Rope:
    """Read theta and scaling from the newer `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    given = _mapping(options, "rope_scaling") or _mapping(options, "rope_parameters")
    return _parse(options, given, options.number("rope_theta"), max_position)


def read_layered_rope(options: Options, max_position: int) -> tuple[Rope, Rope]:
    """Read those of full and those of sliding layers, from `rope_parameters` per kind or the older flat keys."""
    nested = _mapping(options, "rope_parameters")
    kinds = ("full_attention", "sliding_attention")
    if set(nested) - set(kinds):
        options.refuse("rope_parameters", f"write one object each for {' and '.join(kinds)}")
    full, sliding = (dict(nested.get(kind) or {}) for kind in kinds)
    full |= _mapping(options, "rope_scaling")
    found = (
        _parse(options, full, options.number("rope_theta"), max_position),
        _parse(options, sliding, options.number("rope_local_base_freq"), max_position),
    )
    if found[1].scaling is not None:
        options.refuse("rope_parameters", "use a model whose sliding layers have rope_type default")
    return found


def _mapping(options: Options, key: str) -> dict[str, Any]:
    value = options.get(key) or {}
    if not isinstance(value, dict):
        options.refuse(key, "write an object")
    return dict(value)


def _parse(options: Options, given: dict[str, Any], theta: float, max_position: int) -> Rope:
    """Theta beside the rope options stands in for one among them."""
    source = options.source
    theta = float(given.pop("rope_theta", None) or theta)
    old_kind = given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    partial = given.pop("partial_rotary_factor", options.get("partial_rotary_factor"))
    # A value beside the rope options wins over one among them, as in transformers.
    outer = options.get("original_max_position_embeddings")
    if partial not in (None, 1, 1.0):
        raise UserError(f"{source}: partial_rotary_factor={partial} is not supported; use a model with 1.0")
    if kind not in _FIELDS:
        raise UserError(f"{source}: rope_type {kind!r} is not supported; use a model with {', '.join(_FIELDS)}")
    given = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(set(given) - _FIELDS[kind])
    if unknown:
        raise UserError(f"{source}: rope option {unknown[0]}={given[unknown[0]]!r} is none of {kind}; remove it")
    if kind == "default":
        return Rope(theta, None)
    required = {"factor"} | ({"low_freq_factor", "high_freq_factor"} if kind == "llama3" else set())
    absent = sorted(required - set(given))
    if absent:
        raise UserError(f"{source}: rope_type {kind} needs {absent[0]}; write it beside rope_type")
    original = given.pop("original_max_position_embeddings", max_position)
    if "original_max_position_embeddings" in _FIELDS[kind]:
        original = outer or original
    return Rope(theta, RopeScaling(kind=kind, original_max_position=int(original), **given))


def rope_json(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """Give `rope_scaling`, which old and new transformers read."""
    if scaling is None:
        return None
    values = {"original_max_position_embeddings": scaling.original_max_position, **vars(scaling)}
    kept = {key: values[key] for key in sorted(_FIELDS[scaling.kind]) if values[key] is not None}
    return {"rope_type": scaling.kind, **kept}
