"""Train a reward model on compared answers, score with it, and tune the model against it.

python examples/python/reward_model.py [MODEL] [STEPS]
"""

import sys

import podium

MODEL = sys.argv[1] if len(sys.argv) > 1 else "build/models/smollm2-135m-instruct"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
PARCELS = ("parcel", "letter", "refund", "invoice", "order", "ticket", "key", "card")
PAIRS = [
    {
        "prompt": f"My {thing} is late.",
        "chosen": f"I am sorry about your {thing}. May I have its number?",
        "rejected": "That is not our fault.",
    }
    for thing in PARCELS
]
ADAPTERS = {"lora": {"r": 8, "layers": 1}, "learning_rate": 5e-4, "max_steps": STEPS, "per_device_batch_size": 8}

policy = podium.load(MODEL)
reward = podium.train_reward_model(policy, PAIRS, config=ADAPTERS, seed=1)
prompts = [str(pair["prompt"]) for pair in PAIRS]
for column in ("chosen", "rejected"):
    print(f"{column}: {podium.score(reward, prompts, [str(pair[column]) for pair in PAIRS]).mean():+.2f}")
tuned = podium.train_ppo(policy, reward, prompts, config=ADAPTERS | {"max_new_tokens": 24}, seed=1)
print("after:", podium.generate(tuned, prompts[:1], max_new_tokens=24, temperature=0.7, seed=1).texts[0])
podium.export(tuned, "build/tuned")
