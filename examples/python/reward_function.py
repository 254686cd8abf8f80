"""Tune a model with PPO against a function of your own: answers are to be short and to end.

python examples/python/reward_function.py [MODEL] [STEPS]
"""

import sys

import podium

MODEL = sys.argv[1] if len(sys.argv) > 1 else "build/models/smollm2-135m-instruct"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
PROMPTS = [f"Say hello to {name}." for name in ("Ada", "Ben", "Chen", "Dilek", "Emil", "Fatima", "Goran", "Hana")]


def short(prompts: list[str], completions: list[str], **columns: list[object]) -> list[float]:
    """Reward 1 for no words at all, 0 for twenty."""
    return [1.0 - len(completion.split()) / 20 for completion in completions]


policy = podium.load(MODEL)
tuned = podium.train_ppo(
    policy,
    short,
    PROMPTS,
    config={
        "max_steps": STEPS,
        "per_device_batch_size": 8,
        "max_new_tokens": 24,
        "learning_rate": 3e-4,
        "num_ppo_epochs": 2,
        "lora": {"r": 8, "layers": 1},
    },
    seed=1,
)
for name, model in (("before", policy), ("after", tuned)):
    answers = podium.generate(model, PROMPTS, max_new_tokens=24, temperature=0.7, seed=1)
    print(f"{name}: {sum(short(PROMPTS, answers.texts)) / len(PROMPTS):.2f} on average; {answers.texts[0]!r}")
