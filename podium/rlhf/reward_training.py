"""Train a reward model: normalise, learn from comparisons, normalise again."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from podium.config import RewardConfig
from podium.data.batches import permutation
from podium.data.records import PreferenceRecord, normalised_prompt, pairs
from podium.errors import UserError
from podium.generation import generate
from podium.models import Model
from podium.models.config import NetworkConfig
from podium.models.family import abstract_params, init_adapter
from podium.models.heads import init_head
from podium.models.lora import lora_spec
from podium.models.packing import Example, enclosing, for_rows
from podium.models.precision import in_compute_type
from podium.models.remat import training_config
from podium.parallel import placement
from podium.rlhf.comparisons import (
    WIDTH_STEP,
    Batch,
    Comparison,
    encode,
    epoch_batches,
    sizes_of,
    to_arrays,
)
from podium.rlhf.networks import Network
from podium.rlhf.reward import (
    fold_normalisation,
    make_reward_step,
    normalisation,
)
from podium.rlhf.scoring import encode_answers, score_shown
from podium.rlhf.work import supervised_speed
from podium.training.batching import step_rows
from podium.training.loop import Monitor, TrainingRun
from podium.training.optimizer import configured
from podium.training.progress import Progress
from podium.training.step import TrainState, start_state
from podium.training.trainer import AbstractStep, abstract_training, fit

# Reference samples whose rewards are given mean 0 and variance 1: a standard error of a sixth of a deviation.
REFERENCE_SAMPLES = 32
REFERENCE_TOKENS = 48


@dataclass(frozen=True)
class RewardRun(TrainingRun):
    """What a run of reward training is given besides the model and the records."""

    config: RewardConfig
    max_length: int


def train_reward(base: Model, policy: Model, train: Sequence[PreferenceRecord], run: RewardRun) -> Model:
    """Train a reward model on `train`, starting from `base`, to judge what `policy` will write.

    The two may be of different families and tokenizers. Raises UserError for comparisons that are too long or without
    any untied pair, and when training breaks down.
    """
    train = [record for record in train if any(pairs(record)) or run.config.loss == "plackett_luce"]
    if not train:
        raise UserError("preferences: no two responses to a prompt differ in rank; give some that do")
    comparisons = encode(train, base.tokenizer, run.max_length)
    model = _start(base, run)
    reference = _reference_texts(model, policy, train, run)
    if run.config.normalize:
        gain, bias = _normalisation(model, reference)
        assert model.head is not None, "a reward model starts with a head"
        model = model.replace(head=fold_normalisation(model.head, gain, bias))
    model = _fit(model, comparisons, run)
    if run.config.normalize:
        gain, bias = _normalisation(model, reference)
        model = model.replace(gain=gain, bias=bias)
    return model


def _reference_texts(model: Model, policy: Model, train: Sequence[PreferenceRecord], run: RewardRun) -> list[Example]:
    """Let the starting policy answer some prompts: the samples that rewards are normalised on."""
    if not run.config.normalize:
        return []
    prompts = list({normalised_prompt(record.prompt): record.prompt for record in train}.values())
    order = permutation(len(prompts), run.seed, 0)[:REFERENCE_SAMPLES]
    chosen = [prompts[index] for index in order]
    with Progress(len(chosen), "reward: answers to normalise on", unit="answer") as progress:
        answers = generate(
            policy,
            chosen,
            max_new_tokens=REFERENCE_TOKENS,
            temperature=1.0,
            seed=run.seed,
            batch_size=32,
            progress=lambda done, _: progress.update(done),
        )
    return encode_answers(model, policy.tokenizer, chosen, answers.ids)


def _normalisation(model: Model, reference: Sequence[Example]) -> tuple[float, float]:
    return normalisation(jnp.asarray(score_shown(model, reference, "reward: scores to normalise")))


def _start(base: Model, run: RewardRun) -> Model:
    """The starting policy with a fresh head, and fresh adapters where configured."""
    adapter_key, head_key = jax.random.split(jax.random.key(run.seed))
    spec = lora_spec(run.config.lora)
    adapter = init_adapter(base.config, spec, adapter_key) if spec else None
    head = init_head(base.config, head_key)
    adapter, head = jax.device_put((adapter, head), placement.whole(run.mesh))
    return base.replace(role="reward", lora=spec, adapter=adapter, head=head, read_at=run.config.read_at)


class Trainee(NamedTuple):
    """What a configuration makes of a network before there are weights."""

    network: Network
    optimizer: optax.GradientTransformation
    step: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, jax.Array]]]


def trainee(shape: NetworkConfig, config: RewardConfig, total: int) -> Trainee:
    """Decide what is trained, and how, in `total` steps."""
    lora = lora_spec(config.lora)
    network = Network(shape, lora, "base" if lora else None)
    tx, _ = configured(config, learning_rate=config.learning_rate, total_steps=total)
    step = make_reward_step(network, tx, loss=config.loss, center_rewards_coefficient=config.center_rewards_coefficient)
    return Trainee(network, tx, step)


def _in_micro_batches(batch: Any, parts: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x).reshape(parts, len(x) // parts, *x.shape[1:]), batch)


def abstract_reward_step(
    start: NetworkConfig, config: RewardConfig, mesh: Mesh, *, prompt: int, length: int
) -> AbstractStep:
    """Make the program that `train_reward` would compile, without a model, for the longest pairs.

    Each is a prompt of `prompt` tokens with two responses that fill `length` tokens. Raises UserError as `train_reward`
    for rows that cannot be shared.
    """
    longest = Comparison([0] * prompt, [[0] * (length - prompt)] * 2, [1, 2], 1.0, 0.0)
    shape = for_rows(training_config(start, config.remat), [longest.example])
    lists, parts = step_rows("reward", config, placement.data_parallel(mesh))
    network, tx, step = trainee(shape, config, config.max_steps or 1)
    width = enclosing(sizes_of(shape, [longest]), WIDTH_STEP)
    arrays = to_arrays(shape, [longest], Batch((0,) * lists, width), candidates=2, pad_id=0)
    base, adapter = abstract_params(start, network.lora)
    head = jax.eval_shape(lambda: init_head(start, None))
    weights = {"head": head} | ({"adapter": adapter} if network.lora else {"base": base})
    stored = jax.eval_shape(lambda base: in_compute_type(base, start.dtype), base)
    bases = {"base": stored} if network.lora else {}
    sides = (weights, network.axes(weights)), (bases, Network(start).axes(bases))
    return abstract_training(step, tx, mesh, *sides, _in_micro_batches(arrays, parts))


def _fit(model: Model, comparisons: Sequence[Comparison], run: RewardRun) -> Model:
    config, mesh = run.config, run.mesh
    shape = for_rows(training_config(model.config, config.remat), (one.example for one in comparisons))
    trained = {"adapter": model.adapter} if model.lora else {"base": model.params}
    bases = {"base": in_compute_type(model.params, model.config.dtype)} if model.lora else {}
    bases = placement.place_weights(mesh, Network(model.config).axes(bases), bases)
    lists, parts = step_rows("reward", config, placement.data_parallel(mesh))
    sizes = sizes_of(shape, comparisons)
    per_epoch = -(-len(comparisons) // lists)
    total = config.max_steps or max(1, round(per_epoch * config.num_train_epochs))
    network, tx, step = trainee(shape, config, total)
    candidates = max(len(comparison.candidates) for comparison in comparisons)
    plan = functools.lru_cache(maxsize=2)(lambda epoch: epoch_batches(sizes, lists, seed=run.seed, epoch=epoch))

    def planned(index: int) -> Batch:
        epoch, place = divmod(index, per_epoch)
        return plan(epoch)[place]

    speed = supervised_speed(mesh, network, lambda index: planned(index).width, rows=lists, passes=parts, logits=False)
    with placement.on(mesh):

        def batch(index: int) -> Any:
            arrays = to_arrays(shape, comparisons, planned(index), candidates=candidates, pad_id=model.tokenizer.pad_id)
            return placement.place_batch(mesh, _in_micro_batches(arrays, parts), dim=1)

        weights = {**trained, "head": model.head}
        state = start_state(mesh, network.axes(weights), weights, tx)
        monitor = Monitor("reward", {"loss": "loss", "acc": "accuracy"}, speed=speed)
        state = fit(step, state, bases, batch, run, monitor, total=total)
    trained_model = {"adapter": state.weights["adapter"]} if model.lora else {"params": state.weights["base"]}
    return dataclasses.replace(model, head=state.weights["head"], **trained_model)
