"""Steps of training beside what the same steps gave at an earlier commit, on given weights, texts and responses.

The numbers in `characterisation.json` are not renewed when the code changes: it was written once, by
`python tests/rlhf/test_characterisation.py`, which adds the cases it lacks and touches no other. Weights come by their
names in Hugging Face files, so that a new shape of our own trees changes nothing here. Where a processor's digits
differ by more than the bound, write the file at the earlier commit on that processor and compare with that.

Seen to fail: with 2 % more learning rate; with the value loss halved; with minibatches of other rows; with the last
token of every response left out.
"""

import functools
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from podium.config import PpoConfig
from podium.data.batches import pad_left, pad_right
from podium.models import LoraSpec, Model, load, save
from podium.models.family import init_adapter
from podium.models.text import Text
from podium.parallel import placement
from podium.parallel.mesh import make_mesh
from podium.rlhf import comparisons, demonstrations
from podium.rlhf.networks import Network
from podium.rlhf.ppo import learn
from podium.rlhf.reward import make_reward_step
from podium.rlhf.roles import fill_roles, make_roles, ppo_spec, reward_network
from podium.rlhf.rollout import Rollout
from podium.rlhf.sft import make_sft_step
from podium.rlhf.state import Frozen, PpoState, init_state
from podium.training.optimizer import make_optimizer, open_optimizer
from podium.training.step import start_state
from support import folders

FILE = Path(__file__).with_name("characterisation.json")
STEPS, ROWS = 2, 8
LORA = LoraSpec(4, 8.0)
MESHES: dict[int, dict[str, int]] = {1: {}, 8: {"data": 2, "fsdp": 2, "tensor": 2}}
# (what, family, all weights or adapters, critic, devices)
CASES = [
    ("sft", "decoder", "lora", "", 8),
    ("sft", "encoder-decoder", "full", "", 1),
    ("reward", "decoder", "full", "", 1),
    ("reward", "encoder-decoder", "lora", "", 8),
    ("ppo", "decoder", "lora", "separate", 8),
    ("ppo", "decoder", "lora", "shared", 1),
    ("ppo", "decoder", "full", "separate", 1),
    ("ppo", "decoder", "full", "shared", 8),
    ("ppo", "encoder-decoder", "lora", "separate", 1),
    ("ppo", "encoder-decoder", "lora", "shared", 8),
    ("ppo", "encoder-decoder", "full", "separate", 8),
    ("ppo", "encoder-decoder", "full", "shared", 1),
]
Case = tuple[str, str, str, str, int]


def name_of(case: Case) -> str:
    return " ".join(str(part) for part in case if part)


def draw(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """The same numbers for one name and shape, whatever else is drawn."""
    return (np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * scale).astype(np.float32)


@functools.cache
def model_of(kind: str, lora: bool, salt: str = "") -> Model:
    """A tiny model with drawn weights, and with drawn adapters in all layers."""
    with tempfile.TemporaryDirectory() as folder:
        write = folders.write_folder if kind == "decoder" else folders.write_t5_folder
        base = load(write(Path(folder) / "base"))
        if not lora:
            return base
        model = base.replace(lora=LORA, adapter=init_adapter(base.config, LORA, jax.random.key(0)))
        path = save(model, Path(folder) / "adapter") / "adapter_model.safetensors"
        save_file({name: draw(salt + name, x.shape, 0.1) for name, x in load_file(path).items()}, path)
        return load(path.parent)


def head_of(model: Model, salt: str) -> dict[str, jax.Array]:
    return {"kernel": jnp.asarray(draw(salt, (model.config.embed,), 0.3)), "bias": jnp.zeros(())}


def weights_of(model: Model, lora: bool) -> dict[str, Any]:
    return {"adapter": model.adapter} if lora else {"base": jax.tree.map(jnp.copy, model.params)}


def figures(model: Model, weights: dict[str, Any]) -> dict[str, list[float]]:
    """Norm, mean and a drawn direction's share of each tensor, by its name in a file."""
    given = {"params": weights["base"]} if "base" in weights else {"adapter": weights["adapter"]}
    with tempfile.TemporaryDirectory() as name:
        folder = save(
            model.replace(**given, **({"head": weights["head"]} if "head" in weights else {})), Path(name) / "m"
        )
        tensors = {key: x for path in sorted(folder.glob("*.safetensors")) for key, x in load_file(path).items()}
    return {
        key: [float(np.linalg.norm(x)), float(x.mean()), float((draw(key, x.shape, 1.0) * x).sum() / np.sqrt(x.size))]
        for key, x in tensors.items()
    }


def optimizer(learning_rate: float = 1e-2) -> Any:
    return make_optimizer(
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        total_steps=100,
        weight_decay=0.01,
        max_grad_norm=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-3,  # with 1e-8 a gradient near zero turns rounding into a whole step
    )


def texts(model: Model, count: int, salt: str, longest: int) -> list[list[int]]:
    rng = np.random.default_rng(zlib.crc32(salt.encode()))
    top = min(model.config.vocab_size, 98)
    return [rng.integers(3, top, rng.integers(2, longest + 1)).tolist() for _ in range(count)]


def train(case: Case) -> dict[str, Any]:
    """Run the steps of a case; return its metrics, step by step, and the figures of what was trained."""
    what, kind, form, critic, devices = case
    mesh = make_mesh(**MESHES[devices], devices=jax.devices()[:devices])
    model, lora = model_of(kind, form == "lora"), form == "lora"
    if what == "ppo":
        return train_ppo(model, lora, critic, mesh)
    with placement.on(mesh):
        return train_alone(what, model, lora, mesh)


def train_alone(what: str, model: Model, lora: bool, mesh: Any) -> dict[str, Any]:
    """Fine-tuning or a reward model, on two micro-batches a step."""
    network = Network(model.config, LORA if lora else None, "base" if lora else None)
    bases = {"base": model.params} if lora else {}
    bases = placement.place_weights(mesh, Network(model.config).axes(bases), bases)
    weights, pad, tx = weights_of(model, lora), model.tokenizer.pad_id, optimizer()
    prompts, answers = texts(model, ROWS, "prompts", 9), texts(model, 2 * ROWS, "answers", 9)
    if what == "sft":
        shown = [
            demonstrations.Demonstration(prompt, answers[n], (1.0, 0.5)[n % 2]) for n, prompt in enumerate(prompts)
        ]
        sizes = demonstrations.sizes_of(model.config, shown)
        width = demonstrations.width_of(sizes, max_prompt_length=9, max_length=18, packing=True)
        rows = tuple((n,) for n in range(ROWS))
        batch = demonstrations.to_arrays(model.config, shown, rows, width, pad)
        step = make_sft_step(network, tx)
    else:
        weights["head"] = head_of(model, "head")
        pairs = [comparisons.Comparison(p, answers[2 * n : 2 * n + 2], [1, 2], 1.0, 0.1) for n, p in enumerate(prompts)]
        width = comparisons.Size(64, 32 if model.config.packing == "apart" else 0)
        batch = comparisons.to_arrays(
            model.config, pairs, comparisons.Batch(tuple(range(ROWS)), width), candidates=2, pad_id=pad
        )
        step = make_reward_step(network, tx, loss="pairwise", center_rewards_coefficient=0.01)
    state: Any = start_state(mesh, network.axes(weights), weights, tx)
    micro = jax.tree.map(lambda x: np.asarray(x).reshape(2, len(x) // 2, *x.shape[1:]), batch)
    compiled, metrics = jax.jit(step), []
    for _ in range(STEPS):
        state, found = compiled(state, bases, placement.place_batch(mesh, micro, dim=1))
        metrics.append(found)
    return report(metrics, {"model": figures(model, jax.device_get(state.weights))})


def train_ppo(model: Model, lora: bool, critic: str, mesh: Any) -> dict[str, Any]:
    """PPO's updates, two epochs of two minibatches, on given responses with given scores."""
    judge = model_of("decoder" if model.config.packing == "joined" else "encoder-decoder", False)
    reward = judge.replace(role="reward", head=head_of(judge, "reward"))
    settings = {"r": LORA.r, "alpha": LORA.alpha} if lora else None
    config = PpoConfig(
        lora=settings,
        critic={"kind": critic} | ({"init": "policy"} if critic == "separate" else {}),
        num_ppo_epochs=2,
        num_mini_batches=2,
        max_new_tokens=9,
        kl_target=3.0,
        kl_horizon=100,
    )
    base = model.replace(lora=None, adapter=None)
    roles = make_roles(base.config, reward_network(reward, base), config)
    weights, filled = fill_roles(roles, base, reward, 0)
    spec = ppo_spec(roles, config, model.tokenizer.eos_ids, model.tokenizer.pad_id)
    if lora:
        weights["policy"] = weights["policy"] | {"adapter": model.adapter}
    if critic == "separate":
        own = weights_of(model_of(kind_of(model), lora, "critic "), lora)
        weights["critic"] = own | {"head": head_of(model, "values")}
    with placement.on(mesh):
        axes = {name: roles.trained[name].axes(tree) for name, tree in weights.items()}
        weights = placement.place_weights(mesh, axes, weights)
        bases = {"base": filled.bases["policy"]}
        bases = placement.place_weights(mesh, roles.reference.axes(bases), bases)
        frozen = Frozen({"policy": bases["base"]}, {})
        optimizers = {name: optimizer(2e-3) for name in weights}
        state = init_state(weights, optimizers, kl_coef=0.05, key=jax.random.key(7))
        slots = {name: open_optimizer(optimizers[name], mesh, axes[name], tree) for name, tree in weights.items()}
        rest = jax.device_put((state.kl_coef, state.key, state.step, state.scale), placement.whole(mesh))
        state = PpoState(weights, slots, *rest)
        compiled, metrics = jax.jit(functools.partial(learn, spec, optimizers)), []
        for number in range(STEPS):
            prompts, answers = (texts(model, ROWS, f"{part} {number}", 9) for part in ("prompts", "answers"))
            text = Text(*pad_left(prompts, 9, model.tokenizer.pad_id), *pad_right(answers, 9, model.tokenizer.pad_id))
            rollout = Rollout(text, np.array([len(answer) < 9 for answer in answers]))
            scores = draw(f"scores {number}", (ROWS,), 1.0)
            state, out = compiled(state, frozen, *placement.place_batch(mesh, (rollout, scores)))
            metrics.append(out.metrics)
    trained = jax.device_get(state.weights)
    return report(metrics, {name: figures(model, tree) for name, tree in trained.items()})


def kind_of(model: Model) -> str:
    return "decoder" if model.config.packing == "joined" else "encoder-decoder"


def report(metrics: list[Any], tensors: dict[str, Any]) -> dict[str, Any]:
    steps = [{name: float(value) for name, value in one.items()} for one in jax.device_get(metrics)]
    return {"metrics": steps, "weights": tensors}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, float]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from leaves(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", float(value)


@pytest.mark.parametrize("case", CASES, ids=map(name_of, CASES))
def test_steps_give_what_they_gave(case: Case) -> None:
    expected = json.loads(FILE.read_text(encoding="utf-8"))[name_of(case)]
    wanted, found = dict(leaves(expected)), dict(leaves(train(case)))
    assert found.keys() == wanted.keys()
    far = {key: (found[key], wanted[key]) for key in wanted if not close(key, found[key], wanted[key])}
    assert far == {}


def close(key: str, found: float, wanted: float) -> bool:
    """A clip fraction counts tokens on one side of an edge; all else follows the processor's order of sums."""
    return abs(found - wanted) <= (0.05 if "clipfrac" in key else 1e-3 * max(abs(wanted), 1e-2))


def main() -> None:
    """Add the cases that the file lacks."""
    kept = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for case in CASES:
        if name_of(case) not in kept:
            kept[name_of(case)] = train(case)
            print(name_of(case), flush=True)
            FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
