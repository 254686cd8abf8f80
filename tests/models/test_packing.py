"""Rows of several texts: every token is there once, in its place, and a network keeps the texts apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium.models import family
from podium.models.packing import Example, Size, pack, size
from podium.models.text import Text
from support import tiny

CONFIGS = {**tiny.CONFIGS, "encoder": tiny.T5.replace(encoder_only=True)}
TOKENS = st.lists(st.integers(2, 95), min_size=1, max_size=5)
EXAMPLES = st.lists(st.builds(Example, TOKENS, st.lists(TOKENS, min_size=1, max_size=3)), min_size=1, max_size=3)


@pytest.mark.parametrize("kind", CONFIGS)
@given(rows=st.lists(EXAMPLES, min_size=1, max_size=3))
def test_every_text_is_found_again_in_its_row(kind: str, rows: list[list[Example]]) -> None:
    config = CONFIGS[kind]
    sizes = [[size(config, example) for example in row] for row in rows]
    width = Size(*(max(sum(one[part] for one in row) for row in sizes) for part in (0, 1)))
    packed, ends = pack(config, rows, width, tiny.PAD)
    for place, row in enumerate(rows):
        segment = 0
        for number, example in enumerate(row):
            for branch, response in enumerate(example.responses, start=1):
                last = ends[place][number][branch - 1]
                span = slice(last + 1 - len(response), last + 1)
                assert packed.ids[place, span].tolist() == list(response)
                assert packed.response[place, span].all() and (packed.branch[place, span] == branch).all()
                before = packed.ids[place, : span.start].tolist()
                if kind == "encoder-decoder":
                    assert before[-1] == tiny.T5.start_id and not packed.response[place, span.start - 1]
                if kind == "encoder" or branch == 1:
                    segment += 1
                assert (packed.segment[place, span] == segment).all()
                prompts, segments = (
                    (packed.prompt_ids, packed.prompt_segment)
                    if kind == "encoder-decoder"
                    else (packed.ids, np.where(packed.branch == 0, packed.segment, 0))
                )
                assert prompts[place][segments[place] == segment].tolist() == list(example.prompt)
        assert packed.response[place].sum() == sum(len(one) for example in row for one in example.responses)
        assert packed.mask[place].sum() == sum(one.row for one in sizes[place])


def test_what_does_not_fit_is_an_error() -> None:
    example = Example([5, 6, 7], [[8, 9]])
    with pytest.raises(ValueError, match="width 4"):
        pack(tiny.CONFIG, [[example]], Size(4, 0), tiny.PAD)
    with pytest.raises(ValueError, match="width 2"):
        pack(tiny.T5, [[example]], Size(9, 2), tiny.PAD)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_packed_text_has_the_states_it_has_alone(config) -> None:
    """With a segment mask that forgets the prompt's, or positions that run on, these differ in the first digit."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return rng.integers(2, 96, count).tolist()

    row = [Example(tokens(3), [tokens(4)]), Example(tokens(5), [tokens(2), tokens(3)]), Example(tokens(2), [tokens(4)])]
    packed, ends = pack(config, [row], Size(40, 12), tiny.PAD)
    params = tiny.params(config=config)
    states = np.asarray(jax.jit(family.packed_states, static_argnums=0)(config, params, packed))[0]
    alone = jax.jit(family.last_states, static_argnums=0)
    for example, columns in zip(row, ends[0], strict=True):
        for response, column in zip(example.responses, columns, strict=True):
            ids = np.full((1, 5), tiny.PAD), np.full((1, 4), tiny.PAD)
            mask = np.zeros((1, 5), bool), np.zeros((1, 4), bool)
            ids[0][0, 5 - len(example.prompt) :], mask[0][0, 5 - len(example.prompt) :] = example.prompt, True
            ids[1][0, : len(response)], mask[1][0, : len(response)] = response, True
            text = Text(*map(jnp.asarray, (ids[0], mask[0], ids[1], mask[1])))
            expected = np.asarray(alone(config, params, text))[0]
            assert np.abs(expected).max() > 0.5
            np.testing.assert_allclose(states[column], expected, rtol=0, atol=1e-4)
