"""A made-up evaluation with the shape of a real one: a policy that became kinder and shorter, and a fair judge."""

from typing import Any

import numpy as np

from podium.evaluation import comparison, preference, results
from podium.evaluation.report import Page, Run

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> \u202egnp.exe \x1b[31m </p></li>'
ASKS = [
    "My order {n} has not come.",
    "How do I reset my password?",
    "I was charged twice for {n}.",
    "Can I return {n}?",
]
OPENINGS = "I The Your You We Please That This Thanks Sorry It For Each All Our Once When Most Every Some"
WORDS = (
    "order parcel shop return label account password email refund card bank days week form link page note call team "
    "help check send wait look find write keep open close print pay charge twice again soon today friday morning "
    "number address letter reply answer question item box delivery courier door street town with from about until "
    "after before because while and or but not very quite only also then here there what which who how"
)
GATES = {"min_win_rate": 0.55, "max_kl": 12.0, "min_reward_accuracy": 0.6, "max_length_ratio": None}


def sentences(rng: np.random.Generator, count: int, length: int) -> list[str]:
    """Make texts without sense and with the variety of a healthy policy."""
    starts, words = OPENINGS.split(), WORDS.split()
    lengths = rng.integers(length - 4, length + 4, size=count)
    return [" ".join([rng.choice(starts), *rng.choice(words, some)]) + "." for some in lengths]


def answers(rng: np.random.Generator, texts: list[list[str]], reward: float, tokens: float) -> comparison.Answers:
    shape = len(texts), len(texts[0])
    lengths = np.maximum(rng.normal(tokens, 8, size=shape).round(), 3)
    return comparison.Answers(
        texts=texts,
        rewards=rng.normal(reward, 0.9, size=shape),
        tokens=lengths,
        finished=(rng.random(shape) < 0.9).astype(float),
        reference_logprobs=-lengths * rng.normal(2.1, 0.3, size=shape),
    )


def reward_report(rng: np.random.Generator, pairs: int = 300) -> dict[str, Any]:
    gap = rng.normal(1.0, 1.2, size=pairs)
    base = rng.normal(size=pairs)
    lengths = rng.integers(10, 60, size=(2, pairs))
    report = preference.report(base + gap, base, lengths[0], lengths[1], 0.95)
    accuracy = report["accuracy"] | {"value": report["accuracy"]["value"] - 0.02}
    return report | {"cut": {"max_new_tokens": 24, "share": 0.71, "accuracy": accuracy}}


def curves(rng: np.random.Generator, steps: int = 120) -> list[dict[str, Any]]:
    rise = 1.2 * (1 - np.exp(-np.arange(1, steps + 1) / 40))
    kl = 4.5 * (1 - np.exp(-np.arange(1, steps + 1) / 60))
    return [
        {
            "step": step + 1,
            "time": 1.7e9 + 3.1 * step,
            "episode": 16 * (step + 1),
            "objective/scores_raw": 0.1 + 0.8 * rise[step] + rng.normal(0, 0.12),
            "objective/scores": -0.7 + 1.5 * rise[step] + rng.normal(0, 0.12),
            "objective/rlhf_reward": -0.7 + 1.5 * rise[step] - 0.05 * kl[step] + rng.normal(0, 0.12),
            "objective/kl": max(kl[step] + rng.normal(0, 0.2), 0.0),
            "objective/response_length": 34 - 6 * rise[step] + rng.normal(0, 1),
            "val/num_eos_tokens": float(rng.binomial(16, min(0.7 + 0.2 * rise[step], 1.0))),
        }
        for step in range(steps)
    ]


def data_report() -> dict[str, Any]:
    preferences = {"train": 270, "eval": 30, "pairs_train": 270, "pairs_eval": 30}
    longer = {"by_tokens": 0.43, "by_characters": 0.44, "pairs": 270}
    return {
        "preferences": preferences,
        "prompts": {"train": 180, "eval": 20},
        "longer_wins": {"train": longer, "eval": longer},
        "refused": [{"line": 3, "kind": "too_long"}],
        "refused_by_kind": {"too_long": 1},
        "duplicates": [],
        "contradictions": [],
        "leakage": {"preferences": [], "prompts": [{}], "held_out_preferences_in_training_prompts": []},
    }


def page(
    prompts: int = 120,
    *,
    gain: float = 1.0,
    seed: int = 0,
    sample_rows: int = 40,
    hostile: bool = False,
    generations: int = 1,
    before: list[list[str]] | None = None,
    after: list[list[str]] | None = None,
    kl: float = 3.4,
) -> Page:
    """Build a whole page; with `hostile`, prompt and answers try to break out of the markup.

    `before` and `after` are the answers of both sides, [prompts, generations], in place of made-up ones.
    """
    rng = np.random.default_rng(seed)
    asked = [HOSTILE if hostile else ASKS[n % 4].format(n=1000 + n) for n in range(prompts)]
    sides = [
        [sentences(rng, generations, length) if not hostile else [HOSTILE] * generations for _ in range(prompts)]
        for length in (20, 16)
    ]
    baseline = answers(rng, before or sides[0], 0.0, 34)
    tuned = answers(rng, after or sides[1], gain, 28)
    shape = tuned.rewards.shape
    moved = comparison.Drift(tuned.reference_logprobs + rng.normal(kl, 1.5, size=shape), tuned.reference_logprobs)
    rows = sample_rows_of(asked, baseline, tuned, moved.policy_logprobs - moved.reference_logprobs)
    measured = comparison.compare(asked, baseline, tuned, moved, 0.95)
    measured["policies"] = {"baseline": {"model": "a-model", "digest": "cd" * 8}}
    measured["reward_unit"] = "standard deviations of untrained answers"
    found = results.conclude(measured, rows, reward_model=reward_report(rng), gates=GATES)
    return Page(
        results=found,
        rows=rows,
        sample_rows=sample_rows,
        curves=curves(rng),
        config={"seed": seed, "model": {"name_or_path": HOSTILE if hostile else "a-model"}},
        versions={"jax": "0.10.2"},
        inputs={"policy": "ab" * 32},
        data=data_report(),
        run=Run(name="courteous-1", finished="2026-11-26 18:04 UTC", seconds=754.0, hardware="8 x TPU v5 lite"),
    )


def sample_rows_of(
    asked: list[str], before: comparison.Answers, after: comparison.Answers, kl: np.ndarray
) -> list[dict[str, Any]]:
    """Return the rows of samples.jsonl."""
    return [
        {
            "id": f"p{n:04}",
            "generation": k,
            "prompt": [{"role": "user", "content": asked[n]}],
            "kl": float(kl[n, k]),
            **{
                f"{name}{side}": kind(values[n][k])
                for side, one in (("baseline", before), ("tuned", after))
                for name, kind, values in (
                    ("", str, one.texts),
                    ("reward_", float, one.rewards),
                    ("tokens_", int, one.tokens),
                    ("finished_", bool, one.finished),
                )
            },
        }
        for n in range(len(asked))
        for k in range(after.rewards.shape[1])
    ]
