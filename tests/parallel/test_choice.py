"""Which mesh `auto` is, by table: published models on published slices.

Seen to fail: with tensor where rows suffice, with a rollout whose weights do not divide, with memory that is not looked
at, with gradients counted while trained weights answer.
"""

from typing import NamedTuple

import pytest

from podium.parallel.choice import GIB, Chips, Demand, choose_decoding_mesh, choose_mesh


class Model(NamedTuple):
    """Parameters, and the sizes of a network that a mesh cuts."""

    parameters: float
    shared: tuple[int, ...]
    width: int


LLAMA_1B = Model(1.24e9, (32, 8192, 128_256), 2048)
LLAMA_7B = Model(6.74e9, (32, 11_008, 32_000), 4096)
LLAMA_13B = Model(13.0e9, (40, 13_824, 32_000), 5120)
LLAMA_70B = Model(70.6e9, (64, 28_672, 128_256), 8192)
GEMMA_27B = Model(27.2e9, (32, 36_864, 256_000), 4608)
SMOL = Model(0.135e9, (9, 1536, 49_152), 576)
MEMORY = {"v5e": 16 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB, "h100": 79 * GIB}


def adapters(model: Model, rows: int | None) -> Demand:
    """A frozen base in bfloat16, and adapters of a hundredth of its parameters."""
    trained = int(0.01 * model.parameters)
    resident = {"frozen": int(2 * model.parameters), "trained": 4 * trained, "optimizer": 8 * trained}
    return Demand(resident, int(2 * model.parameters), rows, model.shared, model.width)


def full(model: Model, rows: int | None) -> Demand:
    """Policy and critic in float32 with gradients and two slots, reference and reward model in bfloat16."""
    count = int(model.parameters)
    resident = {"frozen": 4 * count, "trained": 8 * count, "gradients": 8 * count, "optimizer": 16 * count}
    return Demand(resident, 2 * count, rows, model.shared, model.width, copied=True)


# demand, chips, their kind, slices -> (data, fsdp, tensor), (data, tensor) of the rollout, fits
CASES = {
    "7B adapters on v5e:4x4": (adapters(LLAMA_7B, 128), 16, "v5e", 1, (1, 16, 1), (2, 8), True),
    "as many rows as chips take": (adapters(LLAMA_7B, None), 16, "v5e", 1, (1, 16, 1), (2, 8), True),
    "forty heads, which sixteen chips cannot share": (adapters(LLAMA_13B, 128), 16, "v5e", 1, (1, 16, 1), (2, 8), True),
    "half a row a chip": (adapters(LLAMA_7B, 8), 16, "v5e", 1, (1, 8, 2), (2, 8), True),
    "one row a chip": (adapters(LLAMA_7B, 16), 16, "v5e", 1, (1, 16, 1), (2, 8), True),
    "13B full on v5p:2x4x4": (full(LLAMA_13B, 128), 32, "v5p", 1, (1, 32, 1), (16, 2), True),
    "70B adapters on v5e:16x16": (adapters(LLAMA_70B, 256), 256, "v5e", 1, (1, 256, 1), (4, 64), True),
    "70B adapters on four slices": (adapters(LLAMA_70B, 1024), 1024, "v5e", 4, (1, 256, 1), (16, 64), True),
    "70B full on v5p:4x4x8": (full(LLAMA_70B, 128), 128, "v5p", 1, (1, 128, 1), (8, 16), True),
    "70B full on v5e:16x16": (full(LLAMA_70B, 256), 256, "v5e", 1, (1, 256, 1), (4, 64), True),
    "70B full on v5e:4x4": (full(LLAMA_70B, 128), 16, "v5e", 1, (1, 16, 1), None, False),
    "a width that fewer chips divide": (adapters(GEMMA_27B, 1024), 1024, "v6e", 1, (2, 512, 1), (64, 16), True),
    "1B on one host of GPUs": (full(LLAMA_1B, 64), 8, "h100", 1, (1, 8, 1), (8, 1), True),
    "nine heads": (adapters(SMOL, 64), 16, "v5e", 1, (1, 16, 1), (16, 1), True),
    "nine heads and few rows": (adapters(SMOL, 4), 8, "v5e", 1, (1, 8, 1), (8, 1), False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mesh_is_chosen_from_model_chips_memory_and_rows(name: str) -> None:
    demand, count, kind, slices, training, rollout, fits = CASES[name]
    chosen = choose_mesh(demand, Chips(count, MEMORY[kind], slices))
    mesh = chosen.mesh
    assert (mesh.slice, mesh.data, mesh.fsdp, mesh.tensor) == (slices, *training)
    found = None if mesh.rollout is None else (mesh.rollout.data, mesh.rollout.tensor)
    assert (found, chosen.fits) == (rollout, fits)
    assert mesh.slice * mesh.data * mesh.fsdp * mesh.tensor == count


@pytest.mark.parametrize(
    ("model", "count", "kind", "sizes", "fits"),
    [
        (LLAMA_7B, 16, "v5e", (2, 8), True),
        (LLAMA_1B, 8, "h100", (8, 1), True),
        (LLAMA_70B, 16, "v5e", (1, 16), True),
        (LLAMA_70B, 4, "v5e", (1, 4), False),
        (SMOL, 8, "v5e", (8, 1), True),
    ],
)
def test_what_only_answers_is_cut_over_tensor_alone(model: Model, count: int, kind: str, sizes, fits: bool) -> None:
    size = int(2 * model.parameters)
    demand = Demand({"frozen": size}, size, None, model.shared, model.width)
    mesh, _, found = choose_decoding_mesh(demand, Chips(count, MEMORY[kind]))
    assert ((mesh.data, mesh.tensor), mesh.fsdp, mesh.rollout, found) == (sizes, 1, None, fits)


def test_the_choice_says_why() -> None:
    why = choose_mesh(adapters(LLAMA_7B, 8), Chips(16, MEMORY["v5e"])).why
    assert why == (
        "8 rows of an update are fewer than 16 chips, so 2 chips share one; training keeps 0.832 GiB of 16 GiB a chip, "
        "cut over fsdp=8 x tensor=2; answers read 1.57 GiB of weights a token and chip, shared by 8"
    )
    why = choose_mesh(adapters(SMOL, 4), Chips(8, MEMORY["v5e"])).why
    assert why.startswith("4 rows of an update are fewer than 8 chips, and no more than 1 can share one; ")
    why = choose_mesh(full(LLAMA_70B, 128), Chips(16, MEMORY["v5e"])).why
    assert why.endswith("does not fit; more than 70% of a chip, which leaves too little to compute with")
