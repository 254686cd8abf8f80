"""A made-up evaluation with the shape of a real one: a policy that became kinder and shorter, and a fair judge."""

from typing import Any

import numpy as np

from podium.evaluation import comparison, preference, results
from podium.evaluation.report import Page

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> \u202egnp.exe \x1b[31m </p></li>'
ASKS = [
    "My order {n} has not come.",
    "How do I reset my password?",
    "I was charged twice for {n}.",
    "Can I return {n}?",
]
BEFORE = "Please see the website for information about that. Orders take between 3 and 9 days, and returns take longer."
AFTER = (
    "I am sorry about order {n}. I have looked it up and it will reach you on Friday. May I help with anything else?"
)
GATES = {"min_win_rate": 0.55, "max_kl": 12.0, "min_reward_accuracy": 0.6, "max_length_ratio": None}


def answers(rng: np.random.Generator, texts: list[str], reward: float, tokens: float) -> comparison.Answers:
    count = len(texts)
    lengths = np.maximum(rng.normal(tokens, 8, size=(count, 1)).round(), 3)
    return comparison.Answers(
        texts=[[text] for text in texts],
        rewards=rng.normal(reward, 0.9, size=(count, 1)),
        tokens=lengths,
        finished=(rng.random((count, 1)) < 0.9).astype(float),
        reference_logprobs=-lengths * rng.normal(2.1, 0.3, size=(count, 1)),
    )


def reward_report(rng: np.random.Generator, pairs: int = 300) -> dict[str, Any]:
    gap = rng.normal(1.0, 1.2, size=pairs)
    base = rng.normal(size=pairs)
    lengths = rng.integers(10, 60, size=(2, pairs))
    return preference.report(base + gap, base, lengths[0], lengths[1], 0.95)


def curves(rng: np.random.Generator, steps: int = 120) -> list[dict[str, Any]]:
    rise = 1.2 * (1 - np.exp(-np.arange(1, steps + 1) / 40))
    kl = 4.5 * (1 - np.exp(-np.arange(1, steps + 1) / 60))
    return [
        {
            "step": step + 1,
            "time": 1.7e9 + 3.1 * step,
            "episode": 16 * (step + 1),
            "objective/scores": -0.2 + rise[step] + rng.normal(0, 0.12),
            "objective/rlhf_reward": -0.2 + rise[step] - 0.05 * kl[step] + rng.normal(0, 0.12),
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
        "refused": [{"line": 3}],
        "duplicates": [],
        "contradictions": [],
        "leakage": {"preferences": [], "prompts": [{}], "held_out_preferences_in_training_prompts": []},
    }


def page(prompts: int = 120, *, gain: float = 1.0, seed: int = 0, sample_rows: int = 40, hostile: bool = False) -> Page:
    """Build a whole page; with `hostile`, prompt and answers try to break out of the markup."""
    rng = np.random.default_rng(seed)
    before = answers(rng, [BEFORE for _ in range(prompts)], 0.0, 34)
    after = answers(rng, [AFTER.format(n=n) for n in range(prompts)], gain, 28)
    moved = comparison.Drift(
        after.reference_logprobs + rng.normal(3.4, 1.5, size=(prompts, 1)), after.reference_logprobs
    )
    kl = moved.policy_logprobs - moved.reference_logprobs
    rows = [
        {
            "id": f"p{n:04}",
            "generation": 0,
            "prompt": [{"role": "user", "content": HOSTILE if hostile else ASKS[n % 4].format(n=1000 + n)}],
            "baseline": HOSTILE if hostile else before.texts[n][0],
            "tuned": HOSTILE if hostile else after.texts[n][0],
            "reward_baseline": float(before.rewards[n, 0]),
            "reward_tuned": float(after.rewards[n, 0]),
            "tokens_baseline": int(before.tokens[n, 0]),
            "tokens_tuned": int(after.tokens[n, 0]),
            "finished_baseline": bool(before.finished[n, 0]),
            "finished_tuned": bool(after.finished[n, 0]),
            "kl": float(kl[n, 0]),
        }
        for n in range(prompts)
    ]
    measured = comparison.compare(before, after, moved, 0.95)
    measured["policies"] = {"baseline": {"model": "a-model", "digest": "cd" * 8}}
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
    )
