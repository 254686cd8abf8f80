"""Which chips can be asked for: real shapes, counted by chips; anything else is refused with what to write."""

import pytest

from podium.config import PodiumConfig
from podium.errors import UserError
from podium.planning.topology import Topology, larger, parse, wanted

MODEL = {"name_or_path": "m"}


@pytest.mark.parametrize(
    ("text", "slices", "chips", "hosts"),
    [
        ("v5e:1x1", 1, 1, 1),
        ("v5e:2x4", 1, 8, 1),
        ("v5e:4x4", 1, 16, 4),
        ("v5e:16x16", 4, 1024, 256),
        ("v5p:2x2x1", 1, 4, 1),
        ("v5p:2x4x4", 1, 32, 8),
        ("v5p:16x16x24", 1, 6144, 1536),
        ("v6e:8x8", 1, 64, 16),
        ("nvidia-h100-80gb:8", 1, 8, 1),
        ("NVIDIA_L4:12", 1, 12, 2),
    ],
)
def test_chips_and_hosts(text: str, slices: int, chips: int, hosts: int) -> None:
    """Hosts as Google's tables of configurations have them."""
    found = parse(text, slices)
    assert (found.chips, found.hosts) == (chips, hosts)


@pytest.mark.parametrize(
    ("text", "slices", "said"),
    [
        ("v9:4x4", 1, r"'v9' is no accelerator that is known; write one of .*v5p"),
        ("v5e", 1, "a slice of v5e has 2 sides; write chips along each, as v5e:4x4"),
        ("v5e:4x4x4", 1, "a slice of v5e has 2 sides"),
        ("v5e:32x32", 1, "no slice of v5e has this shape .* write v5e:16x16 with --slices for more"),
        ("v5e:3x5", 1, "write v5e:4x4"),
        ("v5p:4x4", 1, "a slice of v5p has 3 sides; write chips along each, as v5p:4x4x4"),
        ("v5p:3x3x3", 1, "sides that are multiples of 4, the longest last"),
        ("v5p:8x4x4", 1, "the longest last"),
        ("v5p:16x24x24", 1, "at most 6144 chips"),
        ("v5e:4x4", 0, "--slices 0: write 1 or more"),
        ("nvidia-l4:2x2", 1, "write the number of GPUs, as nvidia-l4:8"),
        ("nvidia-l4:8", 2, "GPUs have no slices"),
    ],
)
def test_what_is_no_topology_is_refused(text: str, slices: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(text, slices)


def config(resources: dict | None) -> PodiumConfig:
    platform = {} if resources is None else {"resources": {"ppo": resources}}
    return PodiumConfig.model_validate({"model": MODEL, "platform": platform})


def test_the_default_is_what_the_stage_asks_for() -> None:
    tpu = config({"accelerator": "v5e", "topology": "4x4"})
    assert wanted(tpu, "ppo", None, 2) == Topology("v5e", (4, 4), 2)
    assert wanted(tpu, "ppo", "v5p:2x2x1", 1).written == "v5p:2x2x1"
    gpus = config({"accelerator": "NVIDIA_L4", "count": 4, "hosts": 2})
    assert str(wanted(gpus, "ppo", None, 1)) == "nvidia-l4:8"


def test_without_any_the_message_says_what_to_write() -> None:
    with pytest.raises(UserError, match=r"write --topology v5e:4x4, or in the config platform\.resources\.ppo"):
        wanted(config(None), "ppo", None, 1)
    with pytest.raises(UserError, match=r"platform\.resources\.ppo\.topology: 4x4"):
        wanted(config({"accelerator": "v5e"}), "ppo", None, 1)


@pytest.mark.parametrize("text", ["v5e:4x4", "v5p:2x4x4", "v4:4x4x4", "nvidia-l4:8"])
def test_larger_topologies_are_real_and_larger(text: str) -> None:
    found = larger(parse(text))
    assert found
    assert [parse(one.written) for one in found] == found
    assert all(one.chips > parse(text).chips for one in found)
