"""Reward training: packed lists equal separate sequences, work may be cut anyhow, and the truth is recovered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.models import family
from podium.models.heads import init_head
from podium.models.packing import Size
from podium.models.text import Text
from podium.parallel import placement
from podium.parallel.mesh import make_mesh
from podium.rlhf.comparisons import Batch, Comparison, epoch_batches, sizes_of, to_arrays, widths
from podium.rlhf.networks import Network
from podium.rlhf.reward import fold_normalisation, make_reward_step, normalisation
from podium.training.optimizer import make_optimizer
from podium.training.step import TrainState
from support import tiny
from support.bounds import check_reordered
from support.meshes import sliced

NETWORKS = {
    "decoder": Network(tiny.CONFIG, tiny.LORA, "base"),
    "encoder-decoder": Network(tiny.T5, tiny.LORA, "base"),
    "encoder": Network(tiny.T5.replace(encoder_only=True), tiny.LORA, "base"),
}
NETWORK = NETWORKS["decoder"]


def comparisons(count: int, *, most: int = 4, seed: int = 0) -> list[Comparison]:
    rng = np.random.default_rng(seed)

    def tokens(low: int, high: int) -> list[int]:
        return rng.integers(2, tiny.CONFIG.vocab_size, rng.integers(low, high)).tolist()

    found = []
    for _ in range(count):
        size = int(rng.integers(2, most + 1))
        ranks = rng.permutation(size) + 1
        found.append(Comparison(tokens(2, 9), [tokens(1, 9) for _ in range(size)], ranks.tolist(), 1.0, 0.0))
    return found


def weights(seed: int = 0, network: Network = NETWORK):
    adapter = family.init_adapter(network.config, tiny.LORA, jax.random.key(seed))
    adapter = jax.tree.map(lambda x: x + 0.1, adapter)
    return {"adapter": adapter, "head": init_head(network.config, jax.random.key(seed + 1))}


def arrays(found: list[Comparison], width: int = 96, candidates: int = 4, network: Network = NETWORK):
    batch = Batch(tuple(range(len(found))), Size(width, 32 if network.config.packing == "apart" else 0))
    rows = to_arrays(network.config, found, batch, candidates=candidates, pad_id=tiny.PAD)
    return jax.tree.map(jnp.asarray, rows)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_candidates_packed_behind_one_prompt_score_as_they_do_alone(network: Network) -> None:
    found, bases = comparisons(5), {"base": tiny.params(config=network.config)}
    own = weights(network=network)
    batch = arrays(found, network=network)
    packed = jax.jit(network.packed_scores)(bases, own, batch.packed, batch.ends)
    assert np.ptp(packed) > 0.2, "scores so near to each other would hide an error"
    alone = jax.jit(network.scores)
    for row, comparison in enumerate(found):
        for column, candidate in enumerate(comparison.candidates):
            ids = [jnp.asarray([part]) for part in (comparison.prompt, candidate)]
            text = Text(ids[0], jnp.ones(ids[0].shape, bool), ids[1], jnp.ones(ids[1].shape, bool))
            assert float(packed[row, column]) == pytest.approx(float(alone(bases, own, text)[0]), abs=2e-5)


def step_once(batch, *, optimizer=None, loss: str = "pairwise", mesh=None, network: Network = NETWORK):
    tx = optimizer or make_optimizer(
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        total_steps=10,
        weight_decay=0.0,
        max_grad_norm=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-3,  # with 1e-8 a gradient near zero turns rounding into a whole step
    )
    own, bases = weights(network=network), {"base": tiny.params(config=network.config)}
    with placement.on(mesh or make_mesh(devices=jax.devices()[:1])):
        if mesh is not None:
            own = placement.place_weights(mesh, network.axes(own), own)
            bases = placement.place_weights(mesh, Network(network.config).axes(bases), bases)
            batch = placement.place_batch(mesh, batch, dim=1)
        state = TrainState(own, tx.init(own), jnp.zeros((), jnp.int32))
        # Optimised, as users run it.
        step = jax.jit(make_reward_step(network, tx, loss=loss, center_rewards_coefficient=0.01), **tiny.OPTIMISED)
        return step(state, bases, batch)


def split(batch, parts: int):
    return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)


@pytest.mark.parametrize("loss", ["pairwise", "plackett_luce"])
def test_micro_batches_and_fillers_change_nothing(loss: str) -> None:
    found = comparisons(6)
    whole = step_once(split(arrays(found), 1), loss=loss)
    rows = Batch((*range(6), -1, -1), Size(96, 0))
    padded = to_arrays(tiny.CONFIG, found, rows, candidates=4, pad_id=tiny.PAD)
    cut = step_once(split(jax.tree.map(jnp.asarray, padded), 4), loss=loss)
    check_reordered(whole, cut)


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ({"data": 8, "fsdp": 1}, "decoder"),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "decoder"),
        ({"data": 1, "fsdp": 2, "tensor": 4}, "decoder"),
        ({"data": 2, "fsdp": 2, "tensor": 2}, "encoder-decoder"),
        ({"slices": 2, "fsdp": 2, "tensor": 2}, "decoder"),
    ],
)
def test_eight_devices_give_the_result_of_one(sizes: dict[str, int], kind: str) -> None:
    network = NETWORKS[kind]
    batch = split(arrays(comparisons(8), network=network), 1)
    one = step_once(batch, mesh=make_mesh(devices=jax.devices()[:1]), network=network)
    check_reordered(one, step_once(batch, mesh=sliced(**sizes), network=network))


def test_every_comparison_comes_once_an_epoch_and_batches_depend_on_seed_and_epoch_alone() -> None:
    rng = np.random.default_rng(0)
    sizes = [Size(int(row), int(row) // 3) for row in rng.integers(5, 300, 101)]
    lengths = [sum(size) for size in sizes]
    batches = epoch_batches(sizes, 8, seed=3, epoch=0)
    assert len(batches) == 13
    assert sorted(row for batch in batches for row in batch.rows if row >= 0) == list(range(101))
    fits = [
        sizes[row].row <= batch.width.row and sizes[row].prompt <= batch.width.prompt
        for batch in batches
        for row in batch.rows
        if row >= 0
    ]
    assert all(fits)
    assert 1 < len({batch.width for batch in batches}) <= len(widths(lengths))
    assert batches == epoch_batches(sizes, 8, seed=3, epoch=0)
    assert batches != epoch_batches(sizes, 8, seed=3, epoch=1)


def test_normalisation_gives_mean_zero_and_variance_one() -> None:
    scores = jnp.asarray([0.5, -1.5, 3.0, 2.0])
    head = {"kernel": jnp.asarray([0.25, -0.75]), "bias": jnp.asarray(0.125)}
    gain, bias = normalisation(scores)
    rewards = gain * scores + bias
    assert float(rewards.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(rewards.std()) == pytest.approx(1.0, abs=1e-6)
    folded = fold_normalisation(head, gain, bias)
    x = jnp.asarray([1.5, -0.5])
    raw = x @ head["kernel"] + head["bias"]
    assert float(x @ folded["kernel"] + folded["bias"]) == pytest.approx(float(gain * raw + bias), abs=1e-6)


def test_bradley_terry_labels_are_recovered_to_within_two_points_of_what_is_possible() -> None:
    """Utility is a weighted count of tokens; labels are drawn from the Bradley-Terry model, so some are wrong.

    The best possible predictor knows the utility; its accuracy on the drawn labels is the ceiling.
    """
    rng = np.random.default_rng(1)
    utility = rng.normal(0, 1.0, tiny.CONFIG.vocab_size)

    def draw(count: int) -> tuple[list[Comparison], np.ndarray]:
        found, right = [], np.zeros(count)
        for index in range(count):
            pair = [rng.integers(2, tiny.CONFIG.vocab_size, 6).tolist() for _ in range(2)]
            difference = utility[pair[0]].sum() - utility[pair[1]].sum()
            first_wins = rng.uniform() < 1 / (1 + np.exp(-difference))
            found.append(Comparison([2, 3], pair, [1, 2] if first_wins else [2, 1], 1.0, 0.0))
            right[index] = (difference > 0) == first_wins
        return found, right

    train, _ = draw(12_288)
    test, bayes = draw(2048)
    network = Network(tiny.CONFIG)
    own = {"base": family.init_params(tiny.CONFIG, jax.random.key(0))[0]}
    own["head"] = init_head(tiny.CONFIG, jax.random.key(1))
    tx = make_optimizer(
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_ratio=0.1,
        total_steps=576,
        weight_decay=0.0,
        max_grad_norm=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
    )
    state = TrainState(own, tx.init(own), jnp.zeros((), jnp.int32))
    step = jax.jit(make_reward_step(network, tx, loss="pairwise", center_rewards_coefficient=0.0))
    for epoch in range(3):
        for batch in epoch_batches(sizes_of(tiny.CONFIG, train), 64, seed=0, epoch=epoch):
            rows = to_arrays(tiny.CONFIG, train, batch._replace(width=Size(16, 0)), candidates=2, pad_id=tiny.PAD)
            state, _ = step(state, {}, split(jax.tree.map(jnp.asarray, rows), 1))
    assert step._cache_size() == 1
    rows = Batch(tuple(range(len(test))), Size(16, 0))
    held_out = jax.tree.map(jnp.asarray, to_arrays(tiny.CONFIG, test, rows, candidates=2, pad_id=tiny.PAD))
    scores = np.asarray(network.packed_scores({}, state.weights, held_out.packed, held_out.ends))
    better = np.array([comparison.ranks[0] == 1 for comparison in test])
    accuracy = np.mean((scores[:, 0] > scores[:, 1]) == better)
    assert accuracy > bayes.mean() - 0.02
