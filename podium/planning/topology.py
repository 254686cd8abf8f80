"""Which chips a plan is for: `v5e:4x4`, several slices of it, or `nvidia-h100-80gb:8`. Imports nothing heavy."""

import math
import re
from dataclasses import dataclass

from podium.config import PodiumConfig
from podium.config.accelerators import ACCELERATORS, Accelerator, accelerator_name
from podium.errors import UserError

# Google's tables of configurations: https://cloud.google.com/tpu/docs/v5e, v6e; v4, v5p for the shapes below a cube of
# 4 x 4 x 4. Larger ones of three sides are cubes put together.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_BELOW_A_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_LARGEST = {"v4": 4096, "v5p": 6144}


@dataclass(frozen=True)
class Topology:
    """Chips of one kind. shape: chips along each side of a slice, of GPUs their number; slices: how many such."""

    name: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def accelerator(self) -> Accelerator:
        return ACCELERATORS[self.name]

    @property
    def is_tpu(self) -> bool:
        return self.accelerator.is_tpu

    @property
    def per_slice(self) -> int:
        """Chips of one slice."""
        return math.prod(self.shape)

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.per_slice * self.slices

    @property
    def hosts(self) -> int:
        """Hosts of all slices; a slice of more than one has 4 chips on each."""
        most = self.accelerator.chip.per_host
        if self.is_tpu and self.per_slice > most:
            most = 4
        return -(-self.per_slice // most) * self.slices

    @property
    def written(self) -> str:
        """One slice, as `parse` reads it."""
        return f"{self.name}:{'x'.join(map(str, self.shape))}"

    def __str__(self) -> str:
        return self.written if self.slices == 1 else f"{self.slices} slices of {self.written}"


def parse(text: str, slices: int = 1) -> Topology:
    """Read `v5e:4x4` or `nvidia-h100-80gb:8`. Raises UserError for what is no accelerator or no shape of it."""
    name, colon, shape = text.partition(":")
    name = accelerator_name(name)
    if name not in ACCELERATORS:
        raise UserError(
            f"--topology {text}: {name!r} is no accelerator that is known; write one of {', '.join(ACCELERATORS)}, "
            "such as v5e:4x4 or nvidia-h100-80gb:8"
        )
    if slices < 1:
        raise UserError(f"--slices {slices}: write 1 or more")
    if not ACCELERATORS[name].is_tpu:
        if slices > 1:
            raise UserError(f"--slices {slices}: GPUs have no slices; write their number, as {name}:16")
        if not re.fullmatch(r"[1-9]\d{0,4}", shape):
            raise UserError(f"--topology {text}: write the number of GPUs, as {name}:8")
        return Topology(name, (int(shape),))
    sides = ACCELERATORS[name].chip.sides
    example = f"{name}:{'4x4' if sides == 2 else '4x4x4'}"
    if not colon or not re.fullmatch("x".join([r"[1-9]\d{0,3}"] * sides), shape):
        raise UserError(f"--topology {text}: a slice of {name} has {sides} sides; write chips along each, as {example}")
    found = Topology(name, tuple(map(int, shape.split("x"))), slices)
    if reason := _no_shape(found):
        raise UserError(f"--topology {text}: {reason}")
    return found


def _no_shape(topology: Topology) -> str | None:
    """Say why Google offers no slice of this shape, with one that it does; None where it does."""
    name, shape = topology.name, topology.shape
    written = "x".join(map(str, shape))
    if topology.accelerator.chip.sides == 2:
        if written in _FLAT:
            return None
        fits = [one for one in _FLAT if math.prod(map(int, one.split("x"))) >= topology.per_slice]
        instead = f"{name}:{fits[0] if fits else _FLAT[-1]}" + ("" if fits else " with --slices for more")
        return f"no slice of {name} has this shape (they are {', '.join(_FLAT)}); write {instead}"
    if written in _BELOW_A_CUBE:
        return None
    if any(side % 4 for side in shape) or list(shape) != sorted(shape):
        listed = ", ".join(_BELOW_A_CUBE)
        return (
            f"no slice of {name} has this shape; write {listed}, or sides that are multiples of 4, the longest last, "
            f"as {name}:4x4x8"
        )
    if max(shape) > topology.accelerator.chip.most or topology.per_slice > _LARGEST[name]:
        return f"a slice of {name} has at most {_LARGEST[name]} chips; write a smaller one, with --slices for more"
    return None


def wanted(config: PodiumConfig, stage: str, text: str | None, slices: int) -> Topology:
    """Return the chips of a stage: those named, else those of platform.resources. Raises UserError where neither is."""
    if text is not None:
        return parse(text, slices)
    resources = config.platform.resources.get(stage)  # type: ignore[call-overload]  # a stage's name
    where = f"platform.resources.{stage}"
    if resources is None or resources.accelerator is None:
        raise UserError(
            f"{where} names no accelerator; write --topology v5e:4x4, or in the config "
            f"{where}: {{accelerator: v5e, topology: 4x4}}"
        )
    name = accelerator_name(resources.accelerator)
    if name in ACCELERATORS and not ACCELERATORS[name].is_tpu:
        return parse(f"{name}:{(resources.count or 1) * resources.hosts}", slices)
    if resources.topology is None:
        raise UserError(f"{where} names no topology; write {where}.topology: 4x4, or --topology {name}:4x4")
    return parse(f"{name}:{resources.topology}", slices)


def larger(topology: Topology) -> list[Topology]:
    """Give topologies of the same kind with more chips, the smallest first: what a model that does not fit may take."""
    name, chip = topology.name, topology.accelerator.chip
    if not topology.is_tpu:
        return [Topology(name, (topology.chips * 2**power,)) for power in range(1, 7)]
    if chip.sides == 2:
        shapes = [tuple(map(int, one.split("x"))) for one in _FLAT]
    else:
        shapes = [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16)]
    return [Topology(name, shape, topology.slices) for shape in shapes if math.prod(shape) > topology.per_slice]
