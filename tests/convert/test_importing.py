"""What import-weights takes its source for; what it makes of one is in test_gguf.py and tests/parity."""

import hashlib
from pathlib import Path

import pytest

from podium.convert import import_weights
from podium.errors import UserError
from support.folders import write_folder, write_json


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ([], ".", "has neither pytorch_model.bin nor params.json; write a .gguf file or a model folder"),
        ([], "absent", "absent: no such file or folder"),
        ([], "absent.bin", "absent.bin: no such file or folder"),
        (
            ["model.bin"],
            "model.bin",
            "is a state dict alone; write the folder that holds pytorch_model.bin, config.json",
        ),
        (["model.pt"], "model.pt", "is a state dict alone"),
        (
            ["consolidated.00.pth"],
            "consolidated.00.pth",
            "or Meta's with params.json, consolidated.00.pth and tokenizer",
        ),
        (["model.safetensors", "pytorch_model.bin"], ".", "holds safetensors, which need no import"),
        (["model.safetensors.index.json"], ".", "holds safetensors, which need no import"),
        (["pytorch_model.bin"], ".", "config.json: no such file"),
        (["pytorch_model.bin"], "pytorch_model.bin", "is a state dict alone"),
        (["pytorch_model.bin", "config.json"], "pytorch_model.bin", "is not supported; use a model of llama"),
        (["pytorch_model.bin", "config.json", "optimizer.pt"], "optimizer.pt", "is a state dict alone"),
        (["params.json", "consolidated.00.pth"], "consolidated.00.pth", "tokenizer.model: no such file"),
        (["params.json"], ".", "tokenizer.model: no such file"),
        (["other.txt"], "other.txt", "other.txt: not a readable GGUF file"),
    ],
)
def test_says_what_to_name_instead(files: list[str], source: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("{}")
    with pytest.raises(UserError) as error:
        import_weights(folder / source, tmp_path / "new")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unsupported_model_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "source", model_type="gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="model_type 'gpt2' is not supported"):
        import_weights(folder, tmp_path / "new")


def test_digests_of_the_source_count(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(b'other').hexdigest()}  pytorch_model.bin\n")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: its content is not what SHA256SUMS says"):
        import_weights(folder, tmp_path / "new")
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-1.bin")
    write_json(folder / "pytorch_model.bin.index.json", {})
    with pytest.raises(UserError, match=r"pytorch_model\.bin: no such file, though SHA256SUMS lists it"):
        import_weights(folder, tmp_path / "new")
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'other').hexdigest()}  model.gguf\n")
    with pytest.raises(UserError, match=r"model\.gguf: its content is not what SHA256SUMS says"):
        import_weights(gguf, tmp_path / "new")


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "source")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    with pytest.raises(UserError, match="exists already"):
        import_weights(folder, tmp_path / "new")
