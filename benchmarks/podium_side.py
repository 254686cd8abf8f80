"""Run one case with Podium and write the seconds of each timed step: `podium_side.py CASE.json RESULT.json`."""

import itertools
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cases
from cases import Case

from podium.parallel.runtime import configure

configure()
cases.limit_threads()
os.environ["JAX_NUM_CPU_DEVICES"] = str(json.loads(Path(sys.argv[1]).read_text())["devices"])

import jax  # noqa: E402 - pages and processors are chosen before JAX starts

from podium.config import CriticConfig, LoraConfig, PpoConfig  # noqa: E402
from podium.data.records import PromptRecord  # noqa: E402
from podium.models import LoraSpec, Model  # noqa: E402
from podium.models.config import EncoderDecoderConfig, NetworkConfig, TransformerConfig  # noqa: E402
from podium.models.family import init_adapter, init_params  # noqa: E402
from podium.models.heads import init_head  # noqa: E402
from podium.parallel import placement  # noqa: E402
from podium.parallel.mesh import make_mesh  # noqa: E402
from podium.rlhf.comparisons import Comparison, epoch_batches, sizes_of, to_arrays  # noqa: E402
from podium.rlhf.networks import Network  # noqa: E402
from podium.rlhf.ppo_training import PpoRun, train_ppo  # noqa: E402
from podium.rlhf.reward import make_reward_step  # noqa: E402
from podium.training.metrics import read_metrics  # noqa: E402
from podium.training.optimizer import make_optimizer  # noqa: E402
from podium.training.step import start_state  # noqa: E402

PAD = 0


def transformer_config(case: Case) -> TransformerConfig:
    shape = case.shape
    return TransformerConfig(
        vocab_size=shape.vocabulary,
        embed=shape.embed,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        mlp=shape.mlp,
        max_position=2048,
        rope_theta=10_000.0,
        norm_eps=1e-5,
        tie_embeddings=True,
    )


def encoder_decoder_config(case: Case) -> EncoderDecoderConfig:
    shape = case.shape
    return EncoderDecoderConfig(
        vocab_size=shape.vocabulary,
        embed=shape.embed,
        encoder_layers=shape.layers,
        decoder_layers=shape.decoder_layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        mlp=shape.mlp,
        norm_eps=1e-6,
        tie_embeddings=False,
        activation="gelu_tanh",
        query_scale=1.0,
    )


def model_config(case: Case) -> NetworkConfig:
    return encoder_decoder_config(case) if case.shape.decoder_layers else transformer_config(case)


def models(case: Case) -> tuple[Model, Model]:
    """A policy and a reward model: an adapter on the policy's base with LoRA, else full weights of its own."""
    config, keys = model_config(case), jax.random.split(jax.random.key(0), 4)
    # Of no text: a prompt's words are its tokens.
    tokenizer: Any = SimpleNamespace(
        same_as=lambda _: True,
        ending=(),
        eos_ids=(),
        pad_id=PAD,
        encode_prompt=lambda prompt: [int(word) for word in prompt[0]["content"].split()],
        decode=str,
    )
    params, _ = init_params(config, keys[0])
    policy = Model(config=config, params=params, tokenizer=tokenizer, base_digest="random")
    reward = policy.replace(role="reward", head=init_head(config, keys[1]))
    if case.lora:
        lora = LoraSpec(case.lora.r, case.lora.alpha, layers=case.lora.layers)
        return policy, reward.replace(lora=lora, adapter=init_adapter(config, lora, keys[2]))
    return policy, reward.replace(params=init_params(config, keys[3])[0])


def ppo_seconds(case: Case) -> list[float]:
    """Run the stage's own loop; its metrics carry the time at which each step's numbers were read."""
    steps = case.warm_up + case.steps
    lora = LoraConfig(r=case.lora.r, alpha=case.lora.alpha, layers=case.lora.layers) if case.lora else None
    config = PpoConfig(
        max_steps=steps,
        per_device_batch_size=case.batch // case.devices,
        num_ppo_epochs=case.epochs,
        max_new_tokens=case.response,
        lr_scheduler_type="constant",
        lora=lora,
        critic=CriticConfig(kind="shared" if case.shared_critic else "separate"),
        save_steps=steps + 1,
        sample_rows=0,
        score_samples=0,
    )
    texts = [" ".join(map(str, ids)) for ids in cases.tokens(case, 4 * case.batch, case.prompt)]
    prompts = [PromptRecord(id=str(n), prompt=[{"role": "user", "content": text}]) for n, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        run = PpoRun(
            config,
            0,
            make_mesh(data=case.devices, fsdp=1),
            path,
            str(path / "checkpoints"),
            "bench",
            path / "rollouts.jsonl",
        )
        train_ppo(*models(case), prompts, run)
        return gaps([row["time"] for row in read_metrics(path)])


def reward_seconds(case: Case) -> list[float]:
    config, mesh = transformer_config(case), make_mesh()
    network = Network(config)
    rows = [Comparison(prompt, list(both), [1, 2], 1.0, 0.0) for prompt, *both in cases.pairs(case, 4 * case.batch)]
    steps = case.warm_up + case.steps
    tx = make_optimizer(
        learning_rate=1e-4,
        lr_scheduler_type="linear",
        warmup_ratio=0.0,
        total_steps=steps,
        weight_decay=0.0,
        max_grad_norm=1.0,
    )
    with placement.on(mesh):
        trained = {"base": init_params(config, jax.random.key(0))[0], "head": init_head(config, jax.random.key(1))}
        state = start_state(mesh, network.axes(trained), trained, tx)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        pure = make_reward_step(network, tx, loss="pairwise", center_rewards_coefficient=0.0)
        step = jax.jit(pure, donate_argnums=0, out_shardings=(shardings, None))
        times = []
        for index in range(steps):
            epoch = epoch_batches(sizes_of(config, rows), case.batch, seed=0, epoch=index // 4)
            arrays = to_arrays(config, rows, epoch[index % 4], candidates=2, pad_id=PAD)
            micro = jax.tree.map(lambda x: x[None], arrays)
            state, metrics = step(state, {}, placement.place_batch(mesh, micro, dim=1))
            float(metrics["loss"])
            times.append(time.time())
    return gaps(times)


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def main(case_file: str, result_file: str) -> None:
    case = cases.from_dict(json.loads(Path(case_file).read_text()))
    seconds = (ppo_seconds if case.kind == "ppo" else reward_seconds)(case)
    versions = {name: version(name) for name in ("podium", "jax", "jaxlib", "optax")}
    # One step ends the warm-up, so there are as many differences after it as timed steps.
    result = {"seconds": seconds[case.warm_up - 1 :], "versions": versions}
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
