"""Legacy torch folders in: transformers reads the same folder itself, or made the model that Meta's form is built from.

Seen to fail: with the rotary rows left in pairs; with shards joined along the other dimension; with tied names written
twice; with weights_only off, when the file of the attacker ran.
"""

import importlib.util
import json
import os
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from podium.convert import import_weights, torch_file
from podium.errors import UserError
from podium.models import Model, load
from podium.models.family import logits
from podium.models.transformer import forward
from support.folders import CONFIG, write_folder, write_json, write_tokenizer
from support.spm import T5_OPTIONS, UNIGRAM, write_spm
from support.stored import Stored, read_stored

IDS = np.random.default_rng(1).integers(0, 256, (1, 16))
LLAMA = {**CONFIG, "head_dim": 8}


def our_logits(model: Model) -> np.ndarray:
    hidden = forward(model.config, model.params, jnp.asarray(IDS, jnp.int32), jnp.ones(IDS.shape, bool))
    return np.asarray(logits(model.config, model.params, hidden))


def their_logits(torch: Any, model: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model.float()(torch.tensor(IDS)).logits.numpy()
    return found


def cast(torch: Any, model: Any, dtype: str) -> Any:
    """Store the weights in another type; not the rotary frequencies, which no file holds."""
    for value in model.parameters():
        value.data = value.data.to(getattr(torch, dtype))
    return model


def bits(torch: Any, tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().view(torch.uint8).numpy().data)


@pytest.fixture
def legacy(hf_model: Callable, torch: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """Return a function that draws a model and writes it as pytorch_model.bin, in two files if asked to."""

    def write(dtype: str = "float32", shards: int = 1, family: str = "llama", **options: Any) -> tuple[Any, Path]:
        from transformers import AutoConfig

        config = {key: value for key, value in LLAMA.items() if key not in ("architectures", "model_type")}
        model = cast(torch, hf_model(AutoConfig.for_model(family, **config | options), tmp_path / "drawn"), dtype)
        folder = tmp_path / "legacy"
        model.config.save_pretrained(folder)
        write_json(folder / "generation_config.json", {"eos_token_id": 257, "temperature": 0.7})
        write_tokenizer(folder)
        state = model.state_dict()
        if shards == 1:
            torch.save(state, folder / "pytorch_model.bin")
            return model, folder
        files = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
        weight_map = {name: files[index % 2] for index, name in enumerate(sorted(state))}
        for file in files:
            torch.save({name: state[name] for name in weight_map if weight_map[name] == file}, folder / file)
        write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
        return model, folder

    return write


@pytest.mark.parametrize(
    ("dtype", "shards", "options"),
    [
        ("float32", 1, {"tie_word_embeddings": True}),
        ("bfloat16", 2, {"tie_word_embeddings": False}),
        ("float16", 1, {"family": "qwen2", "tie_word_embeddings": True}),
    ],
)
def test_a_folder_gives_what_transformers_reads_from_it(
    dtype: str, shards: int, options: dict[str, Any], legacy: Callable, tmp_path: Path, torch: Any
) -> None:
    from transformers import AutoModelForCausalLM

    _, source = legacy(dtype, shards, **options)
    folder = import_weights(source, tmp_path / "new")
    read_by_them = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, use_safetensors=False).eval()
    np.testing.assert_allclose(our_logits(load(folder)), their_logits(torch, read_by_them), rtol=0, atol=2e-4)

    found: Stored = {}
    for path in folder.glob("*.safetensors"):
        found |= read_stored(path)
    code = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    expected = {name: (code, bits(torch, tensor)) for name, tensor in legacy_state(torch, source).items()}
    if options["tie_word_embeddings"]:
        del expected["lm_head.weight"]
    assert found == expected
    assert len(list(folder.glob("*.safetensors"))) == shards
    for name in ("config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()
    assert not list(folder.glob("*.bin*"))


def legacy_state(torch: Any, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in folder.glob("*.bin"):
        found |= torch.load(path, weights_only=True)
    return found


def test_a_head_that_shares_memory_but_is_not_tied_is_written(legacy: Callable, tmp_path: Path, torch: Any) -> None:
    _, source = legacy(tie_word_embeddings=False)
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    torch.save(state, source / "pytorch_model.bin")
    params = load(import_weights(source, tmp_path / "new")).params
    assert np.array_equal(params["lm_head"]["kernel"], np.asarray(params["embedder"]["table"]).T)


def test_the_form_before_torch_1_6_and_one_file_in_place_of_its_folder(
    legacy: Callable, tmp_path: Path, torch: Any
) -> None:
    _, source = legacy()
    first = load_file(import_weights(source / "pytorch_model.bin", tmp_path / "new") / "model.safetensors")
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    torch.save(state, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    again = load_file(import_weights(source, tmp_path / "old") / "model.safetensors")
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_t5_keeps_one_of_its_three_names_of_the_embedding(torch: Any, tmp_path: Path) -> None:
    import transformers

    config = transformers.T5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config)
    source = tmp_path / "legacy"
    model.config.save_pretrained(source)
    write_spm(source / "spiece.model", UNIGRAM, **T5_OPTIONS)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    names = load_file(import_weights(source, tmp_path / "new") / "model.safetensors").keys()
    assert load(tmp_path / "new").tokenizer.hf.tokenize("hello") == ["▁he", "llo"]
    assert "shared.weight" in names and not [name for name in names if "embed_tokens" in name]


def test_holds_one_shard_at_a_time(legacy: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source = legacy("bfloat16", 2, tie_word_embeddings=False)

    seen: list[Any] = []
    read = torch_file.read_state_dict

    def watched(path: Path) -> dict[str, Any]:
        assert [reference() for reference in seen] == [None] * len(seen), "an earlier shard is still held"
        state = read(path)
        seen.extend(weakref.ref(tensor) for tensor in state.values())
        return state

    monkeypatch.setattr(torch_file, "read_state_dict", watched)
    import_weights(source, tmp_path / "new")
    assert len(seen) == 21


class Attack:
    """What pickle runs when it reads this."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(form: str, legacy: Callable, tmp_path: Path, torch: Any) -> None:
    _, source = legacy()
    marker, path = tmp_path / "attacked", source / "pytorch_model.bin"
    state = torch.load(path, weights_only=True) | {"extra": Attack(marker)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"extra": Attack(marker)}))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: ") as error:
        import_weights(source, tmp_path / "new")
    if form != "pickle":
        assert "asks for posix.mkdir" in str(error.value) and "nothing of it was run" in str(error.value)
    assert not marker.exists() and not (tmp_path / "new").exists()
    assert not [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]
    # That it is an attack at all:
    if form != "pickle":
        torch.load(path, weights_only=False)
        assert marker.is_dir()


@pytest.mark.parametrize("kept", [0, 3, 100, -200])
def test_a_truncated_file_is_named(kept: int, legacy: Callable, tmp_path: Path) -> None:
    _, source = legacy()
    path = source / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"pytorch_model\.bin: not a readable torch file") as error:
        import_weights(source, tmp_path / "new")
    assert "weights_only" not in str(error.value), "torch's advice to switch the protection off"
    assert not (tmp_path / "new").exists()


def test_names_what_is_wrong_with_the_tensors(legacy: Callable, tmp_path: Path, torch: Any) -> None:
    _, source = legacy()
    path = source / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    cases = [
        (state | {"model.norm.weight": torch.ones(32, dtype=torch.int8)}, "tensor model.norm.weight is int8"),
        (
            state | {"model.norm.weight": torch.ones(32).to_sparse()},
            "tensor model.norm.weight is float32, torch.sparse",
        ),
        ({"model": dict(state)}, "'model' is a dict, no tensor"),
        ({}, "holds no tensors by name"),
        (state["model.norm.weight"], "holds no tensors by name"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            import_weights(source, tmp_path / "new")


def test_names_what_is_wrong_with_the_shards(legacy: Callable, tmp_path: Path, torch: Any) -> None:
    _, source = legacy("float32", 2, tie_word_embeddings=False)
    index, second = source / "pytorch_model.bin.index.json", source / "pytorch_model-00002-of-00002.bin"
    whole, content = torch.load(second, weights_only=True), index.read_text()
    name = min(whole)
    torch.save({key: value for key, value in whole.items() if key != name}, second)
    with pytest.raises(UserError, match=rf"00002\.bin: tensor {name} is missing"):
        import_weights(source, tmp_path / "new")
    torch.save(whole | {"more": whole[name]}, second)
    with pytest.raises(UserError, match=r"00002\.bin: tensor more is not listed"):
        import_weights(source, tmp_path / "new")
    second.unlink()
    with pytest.raises(UserError, match=r"00002\.bin: no such file, though pytorch_model\.bin\.index\.json lists it"):
        import_weights(source, tmp_path / "new")
    for text, message in (
        ("{}", "has no weight_map"),
        (content.replace(second.name, "../x.bin"), r"is in '\.\./x\.bin', which is no file of this folder"),
    ):
        index.write_text(text)
        with pytest.raises(UserError, match=message):
            import_weights(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def to_meta(torch: Any, model: Any, shards: int, heads: int, kv_heads: int) -> list[dict[str, Any]]:
    """Write a Llama as Meta does, row by row: places i and i + half of a head become neighbours 2i and 2i + 1."""

    def pairs(matrix: Any, count: int) -> Any:
        found, size = torch.empty_like(matrix), matrix.shape[0] // count
        for head in range(count):
            for place in range(size // 2):
                for member in range(2):
                    found[head * size + 2 * place + member] = matrix[head * size + member * (size // 2) + place]
        return found

    parts: list[dict[str, Any]] = [{"rope.freqs": torch.ones(4)} for _ in range(shards)]

    def put(name: str, tensor: Any, dim: int | None) -> None:
        pieces = [tensor] * shards if dim is None else torch.chunk(tensor, shards, dim)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece.clone()

    put("tok_embeddings.weight", model.model.embed_tokens.weight, 1)
    put("norm.weight", model.model.norm.weight, None)
    put("output.weight", model.lm_head.weight, 0)
    for number, layer in enumerate(model.model.layers):
        attention, mlp, prefix = layer.self_attn, layer.mlp, f"layers.{number}."
        put(prefix + "attention.wq.weight", pairs(attention.q_proj.weight, heads), 0)
        put(prefix + "attention.wk.weight", pairs(attention.k_proj.weight, kv_heads), 0)
        put(prefix + "attention.wv.weight", attention.v_proj.weight, 0)
        put(prefix + "attention.wo.weight", attention.o_proj.weight, 1)
        put(prefix + "feed_forward.w1.weight", mlp.gate_proj.weight, 0)
        put(prefix + "feed_forward.w2.weight", mlp.down_proj.weight, 1)
        put(prefix + "feed_forward.w3.weight", mlp.up_proj.weight, 0)
        put(prefix + "attention_norm.weight", layer.input_layernorm.weight, None)
        put(prefix + "ffn_norm.weight", layer.post_attention_layernorm.weight, None)
    return parts


PARAMS = {
    "dim": 32,
    "multiple_of": 16,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_layers": 2,
    "norm_eps": 1e-5,
    "vocab_size": -1,
}


@pytest.fixture
def meta(hf_model: Callable, torch: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """Return a function that draws a Llama and writes it in Meta's form."""

    def write(shards: int = 2, dtype: str = "bfloat16", **params: Any) -> tuple[Any, Path]:
        from transformers import LlamaConfig

        options = {key: value for key, value in LLAMA.items() if key not in ("architectures", "model_type")}
        config = LlamaConfig(**options | {"tie_word_embeddings": False})
        model = cast(torch, hf_model(config, tmp_path / "drawn"), dtype)
        folder = tmp_path / "meta"
        folder.mkdir()
        with torch.no_grad():
            for number, part in enumerate(to_meta(torch, model, shards, 4, 2)):
                torch.save(part, folder / f"consolidated.{number:02d}.pth")
        write_json(folder / "params.json", PARAMS | params)
        write_spm(folder / "tokenizer.model")
        return model, folder

    return write


@pytest.mark.parametrize(("shards", "dtype"), [(1, "float32"), (2, "bfloat16")])
def test_metas_form_is_the_same_model(shards: int, dtype: str, meta: Callable, tmp_path: Path, torch: Any) -> None:
    model, source = meta(shards, dtype)
    folder = import_weights(source, tmp_path / "new")
    code = {"float32": "F32", "bfloat16": "BF16"}[dtype]
    expected = {name: (code, bits(torch, tensor)) for name, tensor in model.state_dict().items()}
    assert read_stored(folder / "model.safetensors") == expected
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"], config["torch_dtype"]) == ("llama", 4096, dtype)
    ours = load(folder)
    assert ours.config.replace(max_position=128) == load(write_folder(tmp_path / "x", tie_word_embeddings=False)).config
    np.testing.assert_allclose(our_logits(ours), their_logits(torch, model), rtol=0, atol=2e-4)
    assert ours.tokenizer.hf.convert_ids_to_tokens(ours.tokenizer.hf("hello").input_ids) == ["<s>", "▁hello"]
    assert ours.tokenizer.eos_ids == (2,)


def test_tells_the_generations_of_llama_apart(meta: Callable, tmp_path: Path) -> None:
    _, source = meta(1, "float32")
    for number, (params, context) in enumerate(
        [({"norm_eps": 1e-6}, 2048), ({"rope_theta": 1e6}, 16384), ({"max_seq_len": 512}, 512)]
    ):
        write_json(source / "params.json", PARAMS | params)
        config = load(import_weights(source, tmp_path / str(number))).config
        assert (config.max_position, config.norm_eps) == (context, params.get("norm_eps", 1e-5))
        assert config.rope_theta == params.get("rope_theta", 1e4)


def test_names_what_is_wrong_with_metas_folder(meta: Callable, tmp_path: Path, torch: Any) -> None:
    _, source = meta()
    first, second = (source / f"consolidated.0{number}.pth" for number in (0, 1))

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            import_weights(source, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    for params, message in [
        ({"use_scaled_rope": True}, "use_scaled_rope=True is not supported"),
        ({"moe": {"num_experts": 8}}, "moe={'num_experts': 8} is not supported"),
        ({"n_layers": 10**9}, "n_layers=1000000000 is not supported"),
        ({"norm_eps": "1e-5"}, "norm_eps is '1e-5'"),
        ({"n_heads": 5}, "n_heads=5 is not supported"),
        ({"max_seq_len": 1.5}, "max_seq_len is 1.5"),
        ({"n_layers": None}, "n_layers is None"),
        ({"n_layers": 3}, r"tensor layers\.2\.\S+ is missing"),
        ({"n_layers": 1}, r"tensor layers\.1\.\S+ belongs to no part"),
        ({"n_kv_heads": 4}, r"attention\.wk\.weight"),
    ]:
        write_json(source / "params.json", PARAMS | params)
        refused(message)
    write_json(source / "params.json", PARAMS)
    (source / "checklist.chk").write_text("0" * 32 + "  consolidated.00.pth\n")
    refused(r"consolidated\.00\.pth: its content is not what checklist\.chk says")
    (source / "checklist.chk").unlink()
    # A lost shard leaves matrices too small; a lost first one leaves a gap.
    kept = second.read_bytes()
    second.unlink()
    refused(r"makes tensor \S+\.wk\.weight \[16, 32\], the files up to consolidated\.00\.pth hold \[8, 32\]")
    first.rename(second)
    refused(r"has consolidated\.01\.pth but no consolidated\.00\.pth")
    second.rename(first)
    second.write_bytes(kept)
    part = torch.load(second, weights_only=True)
    torch.save({name: tensor.float() for name, tensor in part.items()}, second)
    refused(r"consolidated\.01\.pth: tensor \S+ has another dtype")
    del part["norm.weight"]
    torch.save(part, second)
    refused(r"consolidated\.01\.pth: tensor norm\.weight is missing")
    for path in (first, second):
        path.unlink()
    refused(r"has params\.json but no consolidated\.00\.pth")
    (source / "tokenizer.model").unlink()
    refused(r"tokenizer\.model: no such file")


def test_says_which_package_is_missing(legacy: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, source = legacy()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(UserError, match=r"needs the package torch; run `pip install 'podium\[import\]'`"):
        import_weights(source, tmp_path / "new")
    monkeypatch.undo()
    monkeypatch.setattr("torch.__version__", "2.5.1+cpu")
    with pytest.raises(UserError, match=r"torch 2\.5\.1\+cpu does not read files safely, 2\.6 or newer does"):
        import_weights(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()
