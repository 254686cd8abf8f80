"""The arithmetic of a prediction, on figures that can be followed by hand."""

import pytest

from podium.config.accelerators import ACCELERATORS, EFFICIENCY
from podium.planning.roofline import Collective, Phase, cost, time_phase, time_step
from podium.planning.topology import Topology

V5E = Topology("v5e", (4, 4))
CHIP = ACCELERATORS["v5e"].chip


def test_products_bound_a_phase() -> None:
    """A second at peak on 16 chips, with bytes for half of it."""
    phase = Phase("update", 0.8 * 16 * CHIP.peak, 16 * CHIP.peak, 0.5 * CHIP.bandwidth)
    timed = time_phase(phase, V5E, "bfloat16", {})
    assert timed.at_peak == pytest.approx(1.0)
    assert timed.predicted == pytest.approx(1 / EFFICIENCY.products)
    assert timed.bound_by == "products"
    step = time_step([phase], V5E, "bfloat16", {})
    assert (step.hfu, step.mfu) == (pytest.approx(0.6), pytest.approx(0.48))


def test_memory_bounds_a_decode_step() -> None:
    timed = time_phase(Phase("decode", 1.0, 16 * 0.1 * CHIP.peak, 3 * CHIP.bandwidth), V5E, "bfloat16", {})
    assert (timed.at_peak, timed.bound_by) == (pytest.approx(3.0), "memory")
    assert timed.predicted == pytest.approx(3 / EFFICIENCY.memory)


def test_only_what_nothing_hides_is_added() -> None:
    """An exchange of 2 s on both links beside 1 / 0.6 s of products: the rest of it shows, hidden or all of it, not."""
    sent = 2.0 * 2 * CHIP.link * EFFICIENCY.links
    products = 1 / EFFICIENCY.products

    def predicted(*, overlapped: bool, links: float = 2.0) -> float:
        exchange = Collective("all-gather", "fsdp", 0, sent, overlapped, False)
        phase = Phase("update", 1.0, 16 * CHIP.peak, 0.0, [exchange])
        return time_phase(phase, V5E, "bfloat16", {"fsdp": links}).predicted

    assert predicted(overlapped=False) == pytest.approx(products + 2.0)
    assert predicted(overlapped=True) == pytest.approx(2.0)
    assert predicted(overlapped=True, links=1.0) == pytest.approx(4.0)


def test_each_exchange_has_its_latency_and_slices_their_network() -> None:
    exchange = Collective("all-reduce", "slice", 1000, CHIP.network * EFFICIENCY.links, False, True)
    timed = time_phase(Phase("update", 1.0, 0.0, 0.0, [exchange]), V5E, "bfloat16", {})
    assert timed.predicted == pytest.approx(1.0 + 1000 * CHIP.latency)
    assert timed.at_peak == pytest.approx(EFFICIENCY.links)


def test_the_cost_is_of_all_chips() -> None:
    assert cost(1800.0, V5E, 1.5) == pytest.approx(0.5 * 16 * 1.5)


def test_every_accelerator_has_rates() -> None:
    for name, accelerator in ACCELERATORS.items():
        chip = accelerator.chip
        figures = (chip.peak, chip.peak_float32, chip.bandwidth, chip.link, chip.network, chip.latency, chip.memory)
        assert min(figures) > 0, name
        assert (chip.sides > 0) == accelerator.is_tpu, name
