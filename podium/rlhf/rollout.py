"""Let the policy answer prompts."""

import contextlib
from typing import Any, NamedTuple

import jax

from podium.generation.decode import Responses, respond
from podium.models.lora import merge_adapter
from podium.models.text import Text, Trunk
from podium.parallel.rows import ALL, Rows
from podium.parallel.sharding import constrain_tree, laid_out, on_each_slice, spread_tree
from podium.rlhf.networks import Bases, over_rows
from podium.rlhf.spec import PpoSpec
from podium.rlhf.state import PpoState, step_keys


class Prompts(NamedTuple):
    """Left-padded prompts, ids and mask [batch, prompt]."""

    ids: jax.Array
    mask: jax.Array


class Rollout(NamedTuple):
    """Prompts with their sampled responses.

    finished: boolean [batch], the response ended by itself. trunk_states: what the layers that networks on the policy's
    base share made of the text, or None; trunk_ending: of the ending that a scored text has where the response has
    none.
    """

    text: Text
    finished: jax.Array
    trunk_states: jax.Array | None = None
    trunk_ending: jax.Array | None = None

    @property
    def response_mask(self) -> jax.Array:
        """True at the tokens that were sampled, [batch, response]."""
        return self.text.response_mask


def roll_out(spec: PpoSpec, bases: Bases, state: PpoState, prompts: Prompts, rows: Rows = ALL) -> Rollout:
    """Let the policy answer each prompt: the first half of a step, which is pure."""
    responses = over_rows(answer(spec, bases, state, prompts, rows))
    text = Text(prompts.ids, prompts.mask, responses.ids, responses.mask)
    return Rollout(text, responses.finished, responses.trunk_states, responses.trunk_ending)


def answer(spec: PpoSpec, bases: Bases, state: PpoState, prompts: Prompts, rows: Rows = ALL) -> Responses:
    """Answer in the layout of the rollout; what it gives lies there too, its log-probabilities among it."""
    layout = contextlib.nullcontext() if spec.rollout is None else laid_out(spec.rollout)
    keys = rows.local(jax.random.split(step_keys(state).rollout, prompts.ids.shape[0] * rows.count))

    def of_slice(weights: tuple[Bases, PpoState], texts: tuple[Prompts, jax.Array]) -> Responses:
        params, adapter = _policy(spec, *weights)
        return respond(
            spec.policy.config,
            params,
            *over_rows(texts[0]),
            texts[1],
            max_new_tokens=spec.max_new_tokens,
            sampling=spec.sampling,
            eos_ids=spec.eos_ids,
            pad_id=spec.pad_id,
            adapter=adapter,
            lora=spec.policy.lora if adapter else None,
            unroll=spec.unroll_decode,
            trunk_layers=spec.trunk_layers,
            ending=spec.ending,
        )

    with layout:
        # Here already, so that weights change their layout within a slice, too.
        responses: Responses = on_each_slice(of_slice, (bases, state), (prompts, keys))
    return responses


def _policy(spec: PpoSpec, bases: Bases, state: PpoState) -> tuple[Any, Any]:
    """The policy's base and adapter as decoding reads them: in the compute type, and in the layout of the rollout.

    What is trained is moved there anew in each step, inside its program: a copy that lives until the last token. Its
    source, the state, is read again by the updates. A frozen base lies there already; an adapter that is merged needs a
    copy of it, in the same type, that lives as long.
    """
    network = spec.policy
    weights = network.compute(state.weights["policy"])
    if spec.rollout is not None:
        axes = network.axes(weights)
        # In one step XLA gathers all of a weight on every device, to cut it anew. So parts change hands first, and each
        # device gathers what it answers with.
        with laid_out(spec.rollout, halfway=True):
            weights = constrain_tree(weights, axes)
        weights = constrain_tree(spread_tree(weights, axes), axes)
    base = bases.get("rollout") if network.base is not None else None
    params, adapter = network.params(bases, weights) if base is None else base, weights.get("adapter")
    if spec.merge_adapter and network.lora is not None:
        return merge_adapter(params, adapter, network.lora), None
    return params, adapter


def trunk_of(spec: PpoSpec, rollout: Rollout) -> Trunk | None:
    """Return what networks on the policy's base need not compute again of a rollout, if anything."""
    if rollout.trunk_states is None or spec.policy.base is None:
        return None
    return Trunk(rollout.trunk_states, spec.trunk_layers, spec.policy.base)
