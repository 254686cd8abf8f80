"""Batches of encoded prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from podium.data.batches import Padded, batch_indices, pad_left
from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.rlhf.rollout import Prompts

# Prompt widths are rounded up to this.
WIDTH_STEP = 8


@dataclass(frozen=True)
class PromptBatches:
    """Left-padded prompts; batch number `index` is a pure function of the index: a resumed run sees the same ones."""

    padded: Padded
    size: int
    seed: int

    @classmethod
    def of(cls, encoded: Sequence[Sequence[int]], size: int, seed: int, pad_id: int) -> "PromptBatches":
        """Pad prompts to one width, batches of `size` to be drawn from them."""
        width = -(-max(len(row) for row in encoded) // WIDTH_STEP) * WIDTH_STEP
        return cls(pad_left(encoded, width, pad_id), size, seed)

    @classmethod
    def encode(
        cls, prompts: Sequence[PromptRecord], policy: Model, *, room: int, size: int, seed: int
    ) -> "PromptBatches":
        """Encode as the policy reads; raises UserError for no prompts, or one that leaves no room for the response.

        `room`: tokens of the longest response, with an end behind it where scoring puts one.
        """
        if not prompts:
            raise UserError("prompts: none to train on; give data.prompts at least one, or lower data.eval_fraction")
        encoded = [policy.tokenizer.encode_prompt(record.prompt) for record in prompts]
        longest = max(len(row) for row in encoded)
        limit = policy.config.max_position
        if limit is not None and longest + room > limit:
            raise UserError(
                f"prompts: the longest has {longest} tokens; with {room} of ppo.max_new_tokens and the end it "
                f"exceeds the model's {limit}: lower data.max_prompt_length or ppo.max_new_tokens"
            )
        return cls.of(encoded, size, seed, policy.tokenizer.pad_id)

    @property
    def width(self) -> int:
        return self.padded.ids.shape[1]

    def rows(self, index: int) -> list[int]:
        """The prompts of batch number `index`: each comes once an epoch, in an order of the epoch's own."""
        return batch_indices(len(self.padded.ids), self.size, self.seed, index).tolist()

    def at(self, indices: Sequence[int], count: int) -> Prompts:
        """Batches of these numbers, one behind the other [count, size, width]; the last one again fills up."""
        rows = [self.rows(index) for index in indices]
        rows += rows[-1:] * (count - len(rows))
        return Prompts(self.padded.ids[rows], self.padded.mask[rows])  # type: ignore[arg-type]  # jit takes NumPy arrays
