"""What is compared: shapes, the synthetic tokens of both sides, and where the two sides' work differs.

Imports the standard library alone: every environment reads it.
"""

import dataclasses
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = 2
MODELS = Path(__file__).resolve().parent.parent / "build" / "models"
# Ids below this are never drawn; no end token exists, so that every response has the full length.
FIRST_ID = 3


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama with a tied head; with decoder layers, of a T5 1.1, whose encoder has `layers`."""

    vocabulary: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    decoder_layers: int = 0

    @property
    def head_dim(self) -> int:
        return self.embed // self.heads

    @property
    def weight_bytes(self) -> int:
        """Bytes of a Llama's weights in float32: what a pass over one token reads of them."""
        attention = 2 * self.embed * (self.heads + self.kv_heads) * self.head_dim
        layer = attention + 3 * self.embed * self.mlp + 2 * self.embed
        return 4 * (self.vocabulary * self.embed + self.layers * layer + self.embed)


@dataclass(frozen=True)
class Lora:
    """Adapters on all seven projections of the last `layers` layers, of every layer where it is None."""

    r: int = 16
    alpha: int = 32
    layers: int | None = None


@dataclass(frozen=True)
class Case:
    """One comparison. kind: "ppo", "reward" or "generate"; `prompt` and `response` are tokens.

    steps are timed after `warm_up` ones that are not. peer: the environment of the other side, named by its TRL.
    epochs, lora and shared_critic, a value head on the policy's trunk, are PPO's. weights: a folder of `MODELS` that
    both sides load for "generate"; None: random weights. devices: into how many XLA divides the processors for Podium.
    """

    kind: str
    peer: str
    shape: Shape
    batch: int
    prompt: int
    response: int
    warm_up: int
    steps: int
    target: float
    differences: tuple[str, ...]
    epochs: int = 1
    lora: Lora | None = None
    shared_critic: bool = False
    weights: str | None = None
    devices: int = 1

    @property
    def unit(self) -> str:
        return {"ppo": "samples/s", "reward": "pairs/s", "generate": "tokens/s"}[self.kind]

    @property
    def units_per_step(self) -> int:
        return self.batch * (self.response if self.kind == "generate" else 1)

    @property
    def other(self) -> str:
        """What Podium is compared with."""
        return "transformers" if self.kind == "generate" else "trl"


SMALL_T5 = Shape(vocabulary=1000, embed=64, layers=2, heads=4, kv_heads=4, mlp=256, decoder_layers=2)
SMALL = Shape(vocabulary=1000, embed=64, layers=2, heads=4, kv_heads=2, mlp=256)
SMOLLM2 = Shape(vocabulary=49152, embed=576, layers=30, heads=9, kv_heads=3, mlp=1536)
REWARD = Shape(vocabulary=1024, embed=128, layers=4, heads=4, kv_heads=2, mlp=512)

PPO_WORK = (
    "update: Podium takes logits at response positions, TRL at all positions",
    "old log-probabilities and values: Podium reads both off the first update's own forward pass, TRL keeps the "
    "rollout's logits and computes values in a pass of their own",
    "Podium clips the gradient norm of policy and critic, TRL's PPO does not",
    "TRL collects Python's garbage twice a step",
    "TRL without gradient checkpointing and in float32 (its defaults are the slower on a CPU)",
)
LORA_WORK = (
    "Podium: policy, reference, reward model and critic are one frozen backbone with adapters on its last layers, "
    "and the layers below are computed once for all four",
    "TRL: adapters on the same layers of the policy, whose base is the reference; "
    "reward model and critic are full models of their own, and the critic is trained whole (TRL has no other way)",
)
ENCODER_DECODER_WORK = (
    "both: a value head on the policy's decoder states, and a reference and a reward model of the policy's size; the "
    "reward model is a T5 with a scalar head at the last token of the response",
    "TRL takes scores from outside: that reward model is the benchmark's own, without gradients",
    "TRL generates in one batch (by default in batches of 4) and updates in one mini-batch, as Podium does",
    "old log-probabilities and values: Podium reads them off the first update's own forward pass, TRL computes them "
    "in a pass of their own; TRL trains on 23 of the 24 tokens, Podium on all",
    "Podium computes on two devices of one processor and half of the batch each; TRL's threads share every operation",
    "Podium runs eight steps in a call: the time of one is an eighth of the call's",
    "Podium clips the gradient norm, TRL does not (its default); Podium writes a row of metrics per step, TRL none",
)
GENERATE_WORK = (
    "float32, greedy, no end token: both sides write all tokens of every row",
    "Podium also computes every token's log-probability and decodes the answers to text",
    "time of one call, prompts and all: one pass over the prompts and 63 over single tokens, each reading all weights",
)
REWARD_WORK = (
    "Podium packs both candidates behind one prompt of 32 tokens: 96 tokens a pair, TRL reads 128",
    "Podium reads the loss after every step, TRL logs every 10 and reads its metrics after every step",
)
UNSHARED_WORK = (
    "prompt of 1 token: nothing to share, 127 tokens a pair in one row against 2 x 64 in two",
    REWARD_WORK[1],
)


def _reward(batch: int, target: float, *, prompt: int = 32, differences: tuple[str, ...] = REWARD_WORK) -> Case:
    return Case("reward", "1.16.0", REWARD, batch, prompt, 64 - prompt, 5, 15, target, differences)


def _generate(batch: int, target: float) -> Case:
    return Case(
        "generate", "1.16.0", SMOLLM2, batch, 64, 64, 1, 3, target, GENERATE_WORK, weights="smollm2-135m-instruct"
    )


CASES = {
    "ppo-small": Case("ppo", "1.12.0", SMALL, 16, 32, 24, 8, 24, 3.0, PPO_WORK, epochs=4),
    "ppo-smollm2": Case("ppo", "1.12.0", SMOLLM2, 4, 64, 32, 1, 3, 1.2, PPO_WORK),
    "ppo-smollm2-lora": Case("ppo", "1.12.0", SMOLLM2, 4, 64, 32, 1, 4, 2.0, PPO_WORK + LORA_WORK, lora=Lora(layers=8)),
    "ppo-encoder-decoder": Case(
        "ppo", "0.11.4", SMALL_T5, 8, 32, 24, 40, 80, 5.0, ENCODER_DECODER_WORK, epochs=4, shared_critic=True, devices=2
    ),
    "reward-64": _reward(64, 1.0),
    "reward-16": _reward(16, 1.3),
    "reward-64-unshared": _reward(64, 1.0, prompt=1, differences=UNSHARED_WORK),
    "reward-16-unshared": _reward(16, 1.3, prompt=1, differences=UNSHARED_WORK),
    "generate-1": _generate(1, 1.3),
    "generate-8": _generate(8, 1.6),
    "generate-32": _generate(32, 1.6),
}


def to_dict(case: Case) -> dict[str, Any]:
    return dataclasses.asdict(case)


def from_dict(values: dict[str, Any]) -> Case:
    lora = Lora(**values["lora"]) if values["lora"] else None
    return Case(**{**values, "shape": Shape(**values["shape"]), "lora": lora})


def tokens(case: Case, count: int, length: int, *, seed: int = 0) -> list[list[int]]:
    """Draw `count` rows of ids; the same in every environment."""
    rng = random.Random(seed)
    return [[rng.randrange(FIRST_ID, case.shape.vocabulary) for _ in range(length)] for _ in range(count)]


def pairs(case: Case, count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompts with a chosen and a rejected response."""
    prompts = tokens(case, count, case.prompt)
    chosen, rejected = (tokens(case, count, case.response, seed=seed) for seed in (1, 2))
    return list(zip(prompts, chosen, rejected, strict=True))


def limit_threads() -> None:
    """Leave this process THREADS processors, which XLA and torch count; call before importing either."""
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
