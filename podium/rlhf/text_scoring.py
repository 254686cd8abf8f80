"""Score a policy's answers with a reward model that reads other tokens than the policy writes.

Tokens become text on the host and then the reward model's tokens, behind its own rendering of the conversation: what it
scores is what it would be given if it were run alone on the texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.models.packing import Example, Packed, enclosing, pack, size
from podium.rlhf import placement
from podium.rlhf.experience import Rollout
from podium.rlhf.networks import Network
from podium.rlhf.ppo import Frozen
from podium.rlhf.scoring import encode_text

# Widths are rounded up to this, so that answers of all lengths meet few compiled programs.
WIDTH_STEP = 64


@dataclass(frozen=True)
class TextScorer:
    """A reward model with what it needs to read the policy's answers.

    prompts: the conversations that a run's prompt rows stand for; decode: from the policy's tokens to text.
    """

    network: Network
    reward: Model
    prompts: Sequence[PromptRecord]
    decode: Callable[[list[int]], str]

    def compiled(self, mesh: Mesh) -> Callable[[Frozen, Sequence[int], Rollout], jax.Array]:
        """Give (frozen, prompt rows, rollout) -> scores [batch], jitted over the mesh."""
        program = jax.jit(
            lambda frozen, packed, ends: self.network.packed_scores(frozen.bases, frozen.reward, packed, ends)[:, 0]
        )

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
        config = self.reward.config
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
