"""Build the optimizer and its schedule, and lay its state out like the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from podium.config.training import Schedule, TrainingConfig
from podium.parallel.sharding import tree_shardings

# Last names in a parameter's path: scales of norms and biases. Pulling them to zero shrinks outputs, not complexity.
NOT_DECAYED = frozenset({"scale", "bias"})


def make_schedule(
    *, learning_rate: float, lr_scheduler_type: Schedule, warmup_ratio: float, total_steps: int
) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates made before, float32.

    The first ceil(warmup_ratio * total_steps) updates rise in equal parts and end at `learning_rate` (the first is one
    part, not zero: no update is wasted); then the rate is constant, or falls linearly or by half a cosine so that
    update number `total_steps` + 1 would have zero.
    """
    if lr_scheduler_type not in ("constant", "linear", "cosine"):
        raise ValueError(f'lr_scheduler_type is "constant", "linear" or "cosine", not {lr_scheduler_type!r}')
    # Rounded first: 0.07 * 100 is 7.000000000000001, and that is 7 updates, not 8.
    warmup = -int(-round(warmup_ratio * total_steps, 9) // 1)

    def schedule(count: Any) -> jax.Array:
        done = jnp.asarray(count).astype(jnp.float32)
        rise = jnp.minimum((done + 1.0) / max(warmup, 1), 1.0)
        passed = jnp.clip((done - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        fall: dict[str, Any] = {
            "constant": 1.0,
            "linear": 1.0 - passed,
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * passed)),
        }
        return learning_rate * rise * fall[lr_scheduler_type]

    return schedule


def make_optimizer(
    *,
    learning_rate: float,
    lr_scheduler_type: Schedule,
    warmup_ratio: float,
    total_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Return AdamW behind a clip of the global gradient norm; norms' scales and biases are not decayed.

    Epsilon stands outside the square root, as in Kingma and Ba 2015 and torch, not as in the TensorFlow Adam of the
    first RLHF code (docs/rlhf.md section 10).
    """
    schedule = make_schedule(
        learning_rate=learning_rate,
        lr_scheduler_type=lr_scheduler_type,
        warmup_ratio=warmup_ratio,
        total_steps=total_steps,
    )
    adam = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decayed)
    return _tolerant(optax.chain(_clip_by_global_norm(max_grad_norm), adam))


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """As Optax's, but multiplying by one factor, which XLA fuses into Adam; its division is an array of its own."""

    def clipped(gradients: Any, _: Any) -> Any:
        factor = jnp.minimum(1.0, limit / optax.global_norm(gradients))
        return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)

    return optax.stateless(clipped)


def configured(
    section: TrainingConfig, *, learning_rate: float, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return the optimizer that a section of the configuration describes, and its schedule."""
    kind, warmup_ratio = section.lr_scheduler_type, section.warmup_ratio
    schedule = make_schedule(
        learning_rate=learning_rate, lr_scheduler_type=kind, warmup_ratio=warmup_ratio, total_steps=total_steps
    )
    optimizer = make_optimizer(
        learning_rate=learning_rate,
        lr_scheduler_type=kind,
        warmup_ratio=warmup_ratio,
        total_steps=total_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
    )
    return optimizer, schedule


def decayed(params: Any) -> Any:
    """Mark the parameters that weight decay applies to, by the last name of their path."""

    def is_decayed(path: tuple[Any, ...], _: Any) -> bool:
        return jax.tree_util.keystr(path[-1:], simple=True) not in NOT_DECAYED

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def optimizer_shardings(
    tx: optax.GradientTransformation, params_shardings: Any, abstract_params: Any, mesh: Mesh
) -> Any:
    """Give every slot of the optimizer's state the sharding of its parameter, and replicate the counters.

    Use it as `jax.jit(tx.init, out_shardings=...)`: left to itself, `jit` may replicate the slots without a word, twice
    the size of the parameters on every device.
    """
    state = jax.eval_shape(tx.init, abstract_params)
    whole = NamedSharding(mesh, PartitionSpec())
    return optax.tree_map_params(
        tx, lambda _, sharding: sharding, state, params_shardings, transform_non_params=lambda _: whole
    )


def open_optimizer(tx: optax.GradientTransformation, mesh: Mesh, axes: Any, weights: Any) -> Any:
    """Open the optimizer's state with every slot laid out like its parameter, by the logical axes of the weights."""
    shardings = optimizer_shardings(tx, tree_shardings(mesh, axes, weights), weights, mesh)
    return jax.jit(tx.init, out_shardings=shardings)(weights)


def _tolerant(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let Optax raise a Python float to its int32 step count, which strict dtype promotion, on in tests, refuses."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)
