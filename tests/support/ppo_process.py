"""One process of a PPO run of several: `ppo_process.py INDEX PROCESSES PORT FOLDER`, with its devices set outside."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
from jax.sharding import Mesh

from podium.cli.ending import conclude
from podium.config import CriticConfig, PpoConfig
from podium.data.records import PromptRecord
from podium.errors import UserError
from podium.models import Model
from podium.models.family import init_params
from podium.models.heads import init_head
from podium.parallel import distributed, placement
from podium.parallel.alike import alike
from podium.parallel.launch import read_launch
from podium.parallel.mesh import make_mesh
from podium.rlhf.ppo_training import PpoRun, train_ppo
from support import tiny

# Of one layer: compiling takes most of the time.
CONFIG = dataclasses.replace(tiny.T5, encoder_layers=1, decoder_layers=1)


def train(folder: Path) -> None:
    """Eleven steps: a call of eight, one of two up to the checkpoint, one."""
    tokenizer = SimpleNamespace(
        same_as=lambda _: True,
        ending=(tiny.EOS,),
        eos_ids=(tiny.EOS,),
        pad_id=tiny.PAD,
        encode_prompt=lambda prompt: [int(word) for word in prompt[0]["content"].split()],
        decode=str,
    )
    params, _ = init_params(CONFIG, jax.random.key(0))
    policy = Model(config=CONFIG, params=params, tokenizer=tokenizer, base_digest="random")
    reward = policy.replace(role="reward", head=init_head(policy.config, jax.random.key(1)))
    config = PpoConfig(
        max_steps=11,
        per_device_batch_size=2,
        num_ppo_epochs=2,
        max_new_tokens=6,
        critic=CriticConfig(kind="shared"),
        save_steps=10,
        sample_rows=4,
        score_samples=8,
    )
    texts = [f"{2 + row} 3 {5 + row}" for row in range(8)]
    prompts = [PromptRecord(id=text, prompt=[{"role": "user", "content": text}]) for text in texts]
    mesh = make_mesh(data=2, fsdp=1)
    with distributed.folder_of_followers() as aside:
        own = aside or folder
        run = PpoRun(config, 0, mesh, own, str(folder / "checkpoints"), "same", own / "rollouts.jsonl")
        train_ppo(policy, reward, prompts, run)
        differ(mesh, own)


def differ(mesh: Mesh, folder: Path) -> None:
    """Give each process another constant in a program of all, and note what is said of it."""
    rows = placement.place_batch(mesh, np.zeros(2, np.float32))
    mine = float(distributed.index())
    program = alike("the sums", jax.jit(lambda x: (x + mine).sum()))
    try:
        program(rows)
    except UserError as error:
        (folder / "differs.txt").write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    index, processes, port = map(int, sys.argv[1:4])
    # JAX allows it only before it first computes: so importing the above computes nothing.
    launch = read_launch(f"localhost:{port}", processes, index, {})
    with distributed.processes(launch, start_timeout=120, heartbeat_timeout=100, conclude=conclude):
        train(Path(sys.argv[4]))
