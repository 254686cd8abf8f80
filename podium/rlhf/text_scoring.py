"""Score a policy's answers as texts: by any function, or by a reward model that reads other tokens than it writes.

Tokens become text on the host, between the programs of a step. A reward model then sees its own tokens, behind its own
rendering of the conversation: what it scores is what it would be given if it were run alone on the texts.
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.models.packing import Example, Packed, enclosing, pack, size
from podium.parallel import distributed, placement
from podium.parallel.alike import alike
from podium.rlhf.networks import Network
from podium.rlhf.rollout import Rollout
from podium.rlhf.scoring import encode_text
from podium.rlhf.state import Frozen

# Widths are rounded up to this, so that answers of all lengths meet few compiled programs.
WIDTH_STEP = 64


# (frozen, prompt rows, rollout) -> scores [batch], outside of a step's program.
Scorer = Callable[[Frozen, Sequence[int], Rollout], jax.Array]


@dataclass(frozen=True)
class FunctionReward:
    """A reward that is a function, called as TRL calls its reward functions.

    function: called with the keywords prompts and completions, and with a list for each further column; gives a number
    or None per completion. as_text: for each prompt, whether it and its completion are texts, or lists of messages.
    """

    function: Callable[..., Sequence[float | None]]
    as_text: Sequence[bool]


class HostScorer(abc.ABC):
    """What scores answers outside of the step's program, because it reads texts."""

    @abc.abstractmethod
    def compiled(self, mesh: Mesh) -> Scorer:
        """Give the scorer over the mesh."""


@dataclass(frozen=True)
class FunctionScorer(HostScorer):
    """A function with what it is called on.

    prompts: what a run's prompt rows stand for; decode: from the policy's tokens to text. Of a run of several processes
    the first alone calls the function, with the whole batch.
    """

    reward: FunctionReward
    prompts: Sequence[PromptRecord]
    decode: Callable[[list[int]], str]

    def compiled(self, mesh: Mesh) -> Scorer:
        def score(frozen: Frozen, rows: Sequence[int], rollout: Rollout) -> jax.Array:
            answers = rollout.text.response_ids, rollout.response_mask
            fetched = jax.device_get(jax.device_put(answers, placement.whole(mesh)))
            texts = [self.decode(ids[real].tolist()) for ids, real in zip(*fetched, strict=True)]
            values = distributed.lead(lambda: self.call(rows, texts).tolist())
            placed: jax.Array = placement.place_batch(mesh, np.asarray(values, np.float32))
            return placed

        return score

    def call(self, rows: Sequence[int], answers: Sequence[str]) -> np.ndarray:
        """Call the function on answers to the prompts of `rows`; float32 [rows], 0 where it gives None.

        Raises UserError where it does not give a number or None for each of them.
        """
        records, as_text = [self.prompts[row] for row in rows], [self.reward.as_text[row] for row in rows]
        pairs = list(zip(records, answers, as_text, strict=True))
        names = dict.fromkeys(name for record in records for name in record.metadata)
        given = list(
            self.reward.function(
                prompts=[record.prompt[-1]["content"] if text else record.prompt for record, _, text in pairs],
                completions=[
                    answer if text else [{"role": "assistant", "content": answer}] for _, answer, text in pairs
                ],
                **{name: [record.metadata.get(name) for record in records] for name in names},
            )
        )
        if len(given) != len(rows):
            raise UserError(f"reward function: {len(given)} values for {len(rows)} completions; return one for each")
        try:
            return np.array([0.0 if value is None else float(value) for value in given], np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"reward function: {error}; return a number or None for each completion") from None


@dataclass(frozen=True)
class TextScorer(HostScorer):
    """A reward model with what it needs to read the policy's answers.

    prompts: the conversations that a run's prompt rows stand for; decode: from the policy's tokens to text.
    """

    network: Network
    reward: Model
    prompts: Sequence[PromptRecord]
    decode: Callable[[list[int]], str]

    def compiled(self, mesh: Mesh) -> Scorer:
        def scores(frozen: Frozen, packed: Packed, ends: jax.Array) -> jax.Array:
            return self.network.packed_scores(frozen.bases, frozen.reward, packed, ends)[:, 0]

        program = alike("the scores of texts", jax.jit(scores))

        def score(frozen: Frozen, rows: Sequence[int], rollout: Rollout) -> jax.Array:
            answers = rollout.text.response_ids, rollout.response_mask, rollout.finished
            fetched = jax.device_get(jax.device_put(answers, placement.whole(mesh)))
            return program(frozen, *placement.place_batch(mesh, self.pack(rows, *fetched)))

        return score

    def pack(
        self, rows: Sequence[int], ids: np.ndarray, mask: np.ndarray, finished: np.ndarray
    ) -> tuple[Packed, np.ndarray]:
        """Lay the texts out for the reward model; also gives the column of each one's last token [batch, 1].

        Raises UserError for a text beyond the reward model's context.
        """
        config = self.network.config
        texts = [
            self.encode(row, answer[real].tolist(), finished=bool(ended))
            for row, answer, real, ended in zip(rows, ids, mask, finished, strict=True)
        ]
        sizes = [size(config, text) for text in texts]
        limit = config.max_position
        if limit is not None and max(sizes).row > limit:
            raise UserError(
                f"ppo: a prompt with its answer has {max(sizes).row} tokens of the reward model, which reads {limit}; "
                "lower data.max_prompt_length or ppo.max_new_tokens"
            )
        width = enclosing(sizes, WIDTH_STEP)
        layout = pack(config, [[text] for text in texts], width, self.reward.tokenizer.pad_id)
        return layout.packed, np.array([[row[0][0]] for row in layout.ends], np.int32)

    def encode(self, row: int, answer: list[int], *, finished: bool) -> Example:
        """One conversation with its answer, in the reward model's tokens."""
        return encode_text(self.reward, self.prompts[row].prompt, self.decode(answer), finished=finished)
