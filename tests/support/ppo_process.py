"""One process of a PPO run of several: `ppo_process.py INDEX PROCESSES PORT FOLDER`; two devices in all."""

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace

INDEX, PROCESSES, PORT = map(int, sys.argv[1:4])
os.environ["JAX_NUM_CPU_DEVICES"] = str(2 // PROCESSES)

import jax  # noqa: E402 - JAX counts its devices when it starts

if PROCESSES > 1:
    jax.distributed.initialize(f"localhost:{PORT}", PROCESSES, INDEX)

from podium.config import CriticConfig, PpoConfig  # noqa: E402 - nothing may run before all processes have met
from podium.models import Model  # noqa: E402
from podium.models.family import init_params  # noqa: E402
from podium.models.heads import init_head  # noqa: E402
from podium.parallel.mesh import make_mesh  # noqa: E402
from podium.rlhf.ppo import reward_scores  # noqa: E402
from podium.rlhf.ppo_training import PpoRun, cast_networks, fit, ppo_spec  # noqa: E402
from podium.rlhf.prompt_batches import PromptBatches  # noqa: E402
from support import tiny  # noqa: E402

# Of one layer: compiling takes most of the time.
CONFIGS = {
    "decoder": dataclasses.replace(tiny.CONFIG, layers=1),
    "encoder-decoder": dataclasses.replace(tiny.T5, encoder_layers=1, decoder_layers=1),
}


def train(name: str, folder: Path, data: int, fsdp: int) -> None:
    """Eleven steps: a call of eight, one of two up to the checkpoint, one."""
    tokenizer = SimpleNamespace(same_as=lambda _: True)
    params, _ = init_params(CONFIGS[name], jax.random.key(0))
    policy = Model(config=CONFIGS[name], params=params, tokenizer=tokenizer, base_digest="random")
    reward = policy.replace(role="reward", head=init_head(policy.config, jax.random.key(1)))
    config = PpoConfig(
        max_steps=11,
        per_device_batch_size=2,
        num_ppo_epochs=2,
        max_new_tokens=6,
        critic=CriticConfig(kind="shared"),
        save_steps=10,
        sample_rows=4,
    )
    cast = cast_networks(policy, reward, config, 0)
    spec = ppo_spec(cast, config, (tiny.EOS,), tiny.PAD)
    batches = PromptBatches.of([[2 + row, 3, 5 + row] for row in range(8)], 4, 0, tiny.PAD)
    mesh = make_mesh(data=data, fsdp=fsdp)
    run = PpoRun(config, 0, mesh, folder, str(folder / "checkpoints"), folder / "rollouts.jsonl", "same")
    fit(cast, spec, batches, run, str, reward_scores(cast.reward, spec.shared_layers))


if __name__ == "__main__":
    where = Path(sys.argv[4])
    train("encoder-decoder", where / "rows", data=2, fsdp=1)
    train("decoder", where / "shards", data=1, fsdp=2)
    if PROCESSES > 1:
        jax.distributed.shutdown()
