"""Let the policy answer prompts."""

from typing import NamedTuple

import jax

from podium.generation.decode import respond
from podium.models.text import Text, Trunk
from podium.parallel.rows import ALL, Rows
from podium.rlhf.networks import Bases
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
    network = spec.policy
    weights = network.compute(state.weights["policy"])
    keys = jax.random.split(step_keys(state).rollout, prompts.ids.shape[0] * rows.count)
    responses = respond(
        network.config,
        network.params(bases, weights),
        prompts.ids,
        prompts.mask,
        rows.local(keys),
        max_new_tokens=spec.max_new_tokens,
        sampling=spec.sampling,
        eos_ids=spec.eos_ids,
        pad_id=spec.pad_id,
        adapter=weights.get("adapter"),
        lora=network.lora,
        unroll=spec.unroll_decode,
        trunk_layers=spec.trunk_layers,
        ending=spec.ending,
    )
    text = Text(prompts.ids, prompts.mask, responses.ids, responses.mask)
    return Rollout(text, responses.finished, responses.trunk_states, responses.trunk_ending)


def trunk_of(spec: PpoSpec, rollout: Rollout) -> Trunk | None:
    """Return what networks on the policy's base need not compute again of a rollout, if anything."""
    if rollout.trunk_states is None or spec.policy.base is None:
        return None
    return Trunk(rollout.trunk_states, spec.trunk_layers, spec.policy.base)
