"""Decoding with a cache against the naive way: the whole sequence through the network for every token."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podium.generation.decode import Responses, respond
from podium.generation.sampling import Sampling
from podium.models import family, transformer
from podium.models.config import NetworkConfig
from podium.models.lora import LoraSpec
from podium.models.text import Text, Trunk
from support import tiny

NEW = 10
GREEDY = Sampling(0.0)


@partial(jax.jit, static_argnames=("sampling", "unroll", "eos_ids", "lora", "trunk_layers", "config"))
def answer(
    prompts,
    keys,
    adapter=None,
    lora=None,
    *,
    sampling=GREEDY,
    unroll=False,
    eos_ids=(tiny.EOS,),
    trunk_layers=0,
    config: NetworkConfig = tiny.CONFIG,
):
    return respond(
        config,
        tiny.params(config=config),
        prompts.ids,
        prompts.mask,
        keys,
        max_new_tokens=NEW,
        sampling=sampling,
        eos_ids=eos_ids,
        pad_id=tiny.PAD,
        adapter=adapter,
        lora=lora,
        unroll=unroll,
        trunk_layers=trunk_layers,
    )


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(5), count)


@pytest.fixture(scope="module", params=tiny.CONFIGS)
def naive_greedy(request: pytest.FixtureRequest) -> tuple[NetworkConfig, list[list[int]]]:
    """The whole texts through the network for every token, in a buffer whose free places are masked."""
    config, prompts = tiny.CONFIGS[request.param], tiny.prompts(4)
    params, ids = tiny.params(config=config), np.zeros((4, NEW), np.int32)

    @jax.jit
    def states(ids, mask):
        text = Text(prompts.ids, prompts.mask, ids, mask)
        return family.logits(config, params, family.response_states(config, params, text))

    for step in range(NEW):
        mask = np.broadcast_to(np.arange(NEW) < step, (4, NEW))
        ids[:, step] = np.asarray(states(ids, mask))[:, step].argmax(axis=-1)
    return config, ids.tolist()


@pytest.mark.parametrize("unroll", [False, True])
def test_greedy_equals_a_full_forward_pass_per_token(unroll: bool, naive_greedy: tuple) -> None:
    config, expected = naive_greedy
    responses = answer(tiny.prompts(4), keys(4), unroll=unroll, eos_ids=(10**6,), config=config)
    assert responses.ids.tolist() == expected


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("config", tiny.CONFIGS.values(), ids=tiny.CONFIGS)
def test_log_probabilities_equal_those_of_a_full_forward_pass(layers: int | None, config: NetworkConfig) -> None:
    lora = LoraSpec(4, 8.0, layers=layers)
    adapter = jax.tree.map(lambda x: x + 0.3, family.init_adapter(config, lora, jax.random.key(1)))
    prompts, params = tiny.prompts(4), tiny.params(config=config)
    for unroll in (False, True):
        responses = answer(prompts, keys(4), adapter, lora, sampling=Sampling(0.7), unroll=unroll, config=config)
        text = Text(prompts.ids, prompts.mask, responses.ids, responses.mask)
        states = family.response_states(config, params, text, adapter=adapter, lora=lora)
        logits = family.logits(config, params, states) / 0.7
        expected = jnp.take_along_axis(jax.nn.log_softmax(logits), responses.ids[:, :, None], axis=2)[:, :, 0]
        np.testing.assert_allclose(responses.logprobs, jnp.where(responses.mask, expected, 0.0), atol=1e-4)


@pytest.mark.parametrize("eos_ids", [(tiny.EOS,), (10**6,)])
@pytest.mark.parametrize("unroll", [False, True])
def test_the_tap_holds_what_the_lower_layers_make_of_every_token(unroll: bool, eos_ids: tuple[int, ...]) -> None:
    """Also of the last one, which was chosen but not fed on, and where rows end at different steps."""
    lora = LoraSpec(4, 8.0, layers=1)
    adapter = jax.tree.map(lambda x: x + 0.3, family.init_adapter(tiny.CONFIG, lora, jax.random.key(1)))
    prompts, options = tiny.prompts(4), {"adapter": adapter, "lora": lora}
    responses = answer(
        prompts, keys(4), adapter, lora, sampling=Sampling(1.0), unroll=unroll, eos_ids=eos_ids, trunk_layers=1
    )
    ids = jnp.concatenate([prompts.ids, responses.ids], axis=1)
    mask = jnp.concatenate([prompts.mask, responses.mask], axis=1)
    assert responses.trunk_states is not None and responses.trunk_states.shape == (*ids.shape, tiny.CONFIG.embed)
    whole = transformer.forward(tiny.CONFIG, tiny.params(), ids, mask, **options)
    found = transformer.forward(
        tiny.CONFIG, tiny.params(), ids, mask, **options, trunk=Trunk(responses.trunk_states, 1, "base")
    )
    np.testing.assert_allclose(found[mask], whole[mask], atol=1e-4)


@pytest.mark.parametrize("config", tiny.CONFIGS.values(), ids=tiny.CONFIGS)
def test_a_row_does_not_see_its_neighbours_nor_its_padding(config: NetworkConfig) -> None:
    prompts = tiny.prompts(6)
    together = answer(prompts, keys(6), sampling=Sampling(1.0), config=config)
    for row in (0, 3):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], prompts)
        wider = type(alone)(*(jnp.pad(x, ((0, 0), (5, 0))) for x in alone))
        for version in (alone, wider):
            single = answer(version, keys(6)[row : row + 1], sampling=Sampling(1.0), config=config)
            assert single.ids[0].tolist() == together.ids[row].tolist()


def check_ends(responses: Responses, eos_ids: set[int]) -> None:
    columns = map(np.asarray, (responses.ids, responses.mask, responses.finished))
    for ids, mask, finished in zip(*columns, strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert (ids[length:] == tiny.PAD).all()
        ends = [place for place, token in enumerate(ids[:length]) if token in eos_ids]
        assert ends == ([length - 1] if finished else [])


def test_a_response_stops_at_any_end_token_and_keeps_it() -> None:
    eos_ids = tuple(range(1, 20))
    responses = answer(tiny.prompts(8), keys(8), sampling=Sampling(1.0), eos_ids=eos_ids)
    check_ends(responses, set(eos_ids))
    assert int(responses.finished.sum()) > 0


def test_fillers_cost_nothing_and_write_nothing() -> None:
    prompts = tiny.prompts(4)
    mask = prompts.mask.at[2:].set(False)
    responses = answer(prompts._replace(mask=mask), keys(4), sampling=Sampling(1.0))
    assert not responses.mask[2:].any()
    assert (responses.ids[2:] == tiny.PAD).all()
    assert not responses.finished[2:].any()
