"""Fine-tune a language model on demonstrations."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from podium.config import SftConfig
from podium.data.records import DemonstrationRecord
from podium.errors import UserError
from podium.models import Model
from podium.models.config import NetworkConfig
from podium.models.family import abstract_params, init_adapter
from podium.models.lora import lora_spec, merge_adapter
from podium.models.packing import Size, for_rows
from podium.models.precision import in_compute_type
from podium.models.remat import training_config
from podium.parallel import placement
from podium.rlhf.demonstrations import (
    Demonstration,
    PackedRow,
    batches_of,
    encode,
    epoch_rows,
    find_step,
    sizes_of,
    to_arrays,
    width_of,
)
from podium.rlhf.networks import Network, Weights
from podium.rlhf.sft import make_sft_step
from podium.rlhf.work import supervised_speed
from podium.training.batching import step_rows
from podium.training.loop import Monitor, TrainingRun
from podium.training.optimizer import configured
from podium.training.step import start_state
from podium.training.trainer import AbstractStep, abstract_training, fit


@dataclass(frozen=True)
class SftRun(TrainingRun):
    """What a run of fine-tuning is given besides the model and the records."""

    config: SftConfig
    max_prompt_length: int
    max_length: int


def train_sft(base: Model, records: Sequence[DemonstrationRecord], run: SftRun) -> Model:
    """Train on `records`, all weights or an adapter that is then merged into them; `base` gives up its parameters.

    Raises UserError for demonstrations that are too long or none at all, and when training breaks down.
    """
    if not records:
        raise UserError("demonstrations: train.jsonl is empty; name files in data.demonstrations and prepare again")
    demonstrations = encode(records, base.tokenizer, run.max_length)
    longest = max(len(one.prompt) + len(one.response) for one in demonstrations)
    if base.config.max_position is not None and longest > base.config.max_position:
        raise UserError(
            f"demonstrations: up to {longest} tokens of prompt and response, the model reads "
            f"{base.config.max_position}; lower data.max_length and prepare again"
        )
    spec = lora_spec(run.config.lora)
    network_config = for_rows(training_config(base.config, run.config.remat), (one.example for one in demonstrations))
    if spec is None:
        return base.replace(
            params=_fit(Network(network_config), base, {"base": base.params}, demonstrations, run)["base"]
        )
    adapter = {"adapter": init_adapter(base.config, spec, jax.random.key(run.seed))}
    trained = _fit(Network(network_config, spec, "base"), base, adapter, demonstrations, run)
    # The stages that follow train adapters of their own: they need a base without one.
    return base.replace(params=merge_adapter(base.params, trained["adapter"], spec))


def _fit(
    network: Network, base: Model, start: Weights, demonstrations: Sequence[Demonstration], run: SftRun
) -> Weights:
    config, mesh = run.config, run.mesh
    bases = {}
    if network.base is not None:
        bases = {"base": in_compute_type(base.params, base.config.dtype)}
        bases = placement.place_weights(mesh, Network(base.config).axes(bases), bases)
    count, parts = step_rows("sft", config, placement.data_parallel(mesh))
    batches, width = _plan(base, demonstrations, run, count)
    steps_in = functools.cache(lambda epoch: len(batches(epoch)))
    total = config.max_steps or max(1, round(_steps(steps_in, config.num_train_epochs)))
    tx, _ = configured(config, learning_rate=config.learning_rate, total_steps=total)
    with placement.on(mesh):

        def batch(index: int) -> Any:
            epoch, place = find_step(index, steps_in)
            rows = batches(epoch)[place]
            arrays = to_arrays(network.config, demonstrations, rows, width, base.tokenizer.pad_id)
            return placement.place_batch(mesh, _in_micro_batches(arrays, parts), dim=1)

        state = start_state(mesh, network.axes(start), start, tx)
        speed = supervised_speed(mesh, network, lambda _: width, rows=count, passes=parts, logits=True)
        monitor = Monitor("sft", {"loss": "loss"}, speed=speed)
        state = fit(make_sft_step(network, tx), state, bases, batch, run, monitor, total=total)
    trained: Weights = state.weights
    return trained


def _in_micro_batches(batch: Any, parts: int) -> Any:
    # Without -1, which has no answer where prompts take no places.
    return jax.tree.map(lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), batch)


def abstract_sft_step(start: NetworkConfig, config: SftConfig, mesh: Mesh, *, prompt: int, length: int) -> AbstractStep:
    """Make the program that `train_sft` would compile, without a model, for rows that demonstrations fill.

    The longest is a prompt of `prompt` tokens with a response that fills `length` tokens. Raises UserError as
    `train_sft` for rows that cannot be shared.
    """
    longest = Demonstration([0] * prompt, [0] * (length - prompt), 1.0)
    spec = lora_spec(config.lora)
    network = Network(
        for_rows(training_config(start, config.remat), [longest.example]), spec, None if spec is None else "base"
    )
    count, parts = step_rows("sft", config, placement.data_parallel(mesh))
    sizes = sizes_of(start, [longest])
    width = width_of(sizes, max_prompt_length=prompt, max_length=length, packing=config.packing)
    arrays = to_arrays(network.config, [longest], [(0,)] * count, width, 0)
    tx, _ = configured(config, learning_rate=config.learning_rate, total_steps=config.max_steps or 1)
    base, adapter = abstract_params(start, spec)
    weights = {"base": base} if spec is None else {"adapter": adapter}
    stored = jax.eval_shape(lambda base: in_compute_type(base, start.dtype), base)
    bases = {} if spec is None else {"base": stored}
    sides = (weights, network.axes(weights)), (bases, Network(start).axes(bases))
    return abstract_training(make_sft_step(network, tx), tx, mesh, *sides, _in_micro_batches(arrays, parts))


Batches = Callable[[int], list[tuple[PackedRow, ...]]]


def _plan(base: Model, demonstrations: Sequence[Demonstration], run: SftRun, count: int) -> tuple[Batches, Size]:
    """Return the batches of an epoch as a function of its number, and the width of their rows."""
    packing = run.config.packing
    sizes = sizes_of(base.config, demonstrations)
    width = width_of(sizes, max_prompt_length=run.max_prompt_length, max_length=run.max_length, packing=packing)

    @functools.lru_cache(maxsize=2)
    def batches(epoch: int) -> list[tuple[PackedRow, ...]]:
        return batches_of(epoch_rows(sizes, width, packing=packing, seed=run.seed, epoch=epoch), count)

    return batches, width


def _steps(steps_in: Callable[[int], int], epochs: float) -> float:
    """Count the steps of so many epochs, of which the last may be a part of one."""
    part, whole = math.modf(epochs)
    return sum(map(steps_in, range(int(whole)))) + (part * steps_in(int(whole)) if part else 0.0)
