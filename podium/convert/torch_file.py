"""State dicts in torch's own files, read with `weights_only`: what is more than weights is refused and never run."""

import importlib.util
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from podium.errors import UserError
from podium.models.weights.files import read_index
from podium.models.weights.writing import Tensor, write_checkpoint, write_shards

SINGLE_BIN = "pytorch_model.bin"
INDEX_BIN = "pytorch_model.bin.index.json"
# Before 2.6 weights_only could be made to run code (CVE-2025-32434).
_OLDEST = (2, 6)
_DTYPES = ("float32", "bfloat16", "float16")
_FOREIGN = re.compile(r"(?:GLOBAL|function) (\S+)")


def require_torch(path: Path) -> Any:
    """Import torch. Raises UserError where it is absent or too old to be safe."""
    install = "run `pip install 'podium[import]'`, or convert it where torch is"
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{path}: reading a torch file needs the package torch; {install}")
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST:
        raise UserError(f"{path}: torch {torch.__version__} does not read files safely, 2.6 or newer does; {install}")
    return torch


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read the torch tensors of one file by name; they are mapped from the disk where the file's form allows it.

    Raises UserError for a file that is absent, broken, holds anything but float tensors, or asks to run code.
    """
    torch = require_torch(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch it again")
    with path.open("rb") as file:
        # A zip archive can be mapped; what torch wrote before 1.6 cannot.
        mapped = file.read(4) == b"PK\x03\x04"
    try:
        result = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    # A damaged file leads the unpickler to whatever it says.
    except Exception as error:
        raise _unreadable(path, error) from None
    if not isinstance(result, dict) or not result:
        raise UserError(f"{path}: holds no tensors by name; write the folder of a model's weights")
    for name, tensor in result.items():
        _check(path, name, tensor, torch)
    return result


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, pickle.UnpicklingError):
        foreign = _FOREIGN.search(str(error))
        if foreign:
            return UserError(
                f"{path}: holds more than weights: it asks for {foreign[1].strip('.')}, which may be code; "
                "nothing of it was run. Use the model's safetensors, or have its owner save the state dict alone"
            )
        # torch's own words advise to load it without this protection.
        reason = "no pickle of tensors"
    return UserError(f"{path}: not a readable torch file ({reason}); fetch the file again")


def _check(path: Path, name: Any, tensor: Any, torch: Any) -> None:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise UserError(f"{path}: {name!r} is a {type(tensor).__name__}, no tensor; save the model's state dict alone")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or dtype_of(tensor) not in _DTYPES:
        raise UserError(
            f"{path}: tensor {name} is {dtype_of(tensor)}, {tensor.layout}; use weights in one of {', '.join(_DTYPES)}"
        )


def dtype_of(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def as_array(tensor: Any) -> np.ndarray:
    """View a torch tensor as a NumPy array of the same bits."""
    tensor = tensor.detach().contiguous()
    if dtype_of(tensor) != "bfloat16":
        return tensor.numpy()
    import torch

    # torch gives NumPy no bfloat16: the bits pass as integers.
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def convert_folder(source: Path, target: Path, *, tied_head: bool) -> None:
    """Write the weights of a Hugging Face folder with pytorch_model.bin as safetensors: same names, same bits.

    Of names that share memory the first is kept; lm_head.weight always is where `tied_head` is false. One shard is
    held at a time.
    """
    always = frozenset[str]() if tied_head else frozenset({"lm_head.weight"})
    if not (source / INDEX_BIN).is_file():
        write_checkpoint(target, _tensors(read_state_dict(source / SINGLE_BIN), always))
        return
    shards = read_index(source / INDEX_BIN)
    for path in shards:
        if not path.is_file():
            raise UserError(f"{path}: no such file, though {INDEX_BIN} lists it; fetch it again")
    write_shards(target, (_tensors(_read_shard(path, names), always) for path, names in shards.items()), len(shards))


def _read_shard(path: Path, listed: set[str]) -> dict[str, Any]:
    result = read_state_dict(path)
    for name in sorted(listed ^ result.keys()):
        where = "is missing" if name in listed else f"is not listed in {INDEX_BIN}"
        raise UserError(f"{path}: tensor {name} {where}; fetch the folder again")
    return result


def _tensors(state: dict[str, Any], always: frozenset[str]) -> list[Tensor]:
    """List tensors, without those that are the same piece of memory as an earlier one: tied weights."""
    seen: set[Any] = set()
    result = []
    for name, tensor in state.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if place not in seen or tensor.numel() == 0 or name in always:
            result.append(Tensor(name, tuple(tensor.shape), partial(as_array, tensor), dtype_of(tensor)))
        seen.add(place)
    return result
