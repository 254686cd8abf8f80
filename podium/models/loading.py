"""Load a model from a Hugging Face folder or a Podium Model folder."""

from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from podium.errors import UserError
from podium.models.bundle import ROLES, Model, ReadAt, Role, Tree
from podium.models.config import EncoderDecoderConfig, NetworkConfig
from podium.models.families.config_json import parse_config
from podium.models.families.names import SCORE
from podium.models.family import abstract_params
from podium.models.hub import find_folder
from podium.models.peft import ADAPTER_CONFIG, ADAPTER_WEIGHTS, parse_adapter_config
from podium.models.weights.files import TensorFiles, fingerprint
from podium.models.weights.json_file import read_json
from podium.models.weights.reading import read_adapter, read_params, settle_head
from podium.parallel import placement

MANIFEST = "podium_model.json"
HEAD_WEIGHTS = "head.safetensors"
FORMAT = 1  # of podium_model.json
_FIELDS: dict[str, Any] = {
    "format": int,
    "role": str,
    "gain": int | float,
    "bias": int | float,
    "lora": dict | None,
    "base": str | None,
    "base_digest": str | None,
    "metadata": dict,
}
# In metadata: the model_type of which a base model is a part, as of a multimodal model the text model.
WHOLE = "part_of"
_COMPUTE_DTYPES = ("float32", "bfloat16")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load(
    name_or_path: str | Path,
    *,
    role: Role = "policy",
    dtype: str = "float32",
    mesh: Mesh | None = None,
    revision: str | None = None,
    base: str | Path | None = None,
    shared: Model | None = None,
    encoder_only: bool = False,
) -> Model:
    """Load a model with its tokenizer. Parameters are float32; `dtype` is what it computes in.

    name_or_path: a folder, the gs:// or s3:// URI of one, or a name on the Hugging Face Hub (`revision` of it).
    A mesh spreads the parameters over its devices. For an adapter's folder, `base` says where its base model is now,
    if not where it was; and when `shared` has the same base, its parameters are used instead of a second copy.
    encoder_only: of an encoder-decoder the encoder alone, for a reward model; a folder that holds one says so itself.
    Raises UserError for whatever is wrong with the files.
    """
    if dtype not in _COMPUTE_DTYPES:
        raise UserError(f"model.dtype: {dtype!r} is not supported; write one of {', '.join(_COMPUTE_DTYPES)}")
    if role not in ROLES:
        raise ValueError(f"role {role!r} is none of {ROLES}")
    folder = find_folder(str(name_or_path), revision)
    if not (folder / MANIFEST).is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            raise UserError(f"{folder}: holds a bare adapter; merge it into its base model and write that folder")
        model = _load_base(folder, str(name_or_path), _Use(role, dtype, mesh, encoder_only))
        return model.replace(metadata=model.metadata | ({"revision": revision} if revision else {}))
    manifest = read_json(folder / MANIFEST)
    _check_manifest(manifest, folder, role)
    # Folders from before there were encoders do not say.
    use = _Use(role, dtype, mesh, encoder_only or manifest.get("encoder_only", False))
    if manifest.get("lora") is None:
        model = _load_base(folder, str(folder), use)
    else:
        model = _load_adapted(folder, manifest, use, base=base, shared=shared)
    if (folder / HEAD_WEIGHTS).is_file():
        model = model.replace(head=_read_head(folder, model.config))
    if model.head is not None and mesh is not None:
        model = model.replace(head=jax.device_put(model.head, placement.whole(mesh)))
    # Folders from before there was a choice do not say.
    read_at = manifest.get("read_at", "end")
    if read_at not in get_args(ReadAt):
        raise UserError(f"{folder / MANIFEST}: read_at is {read_at!r}; write end or last")
    return model.replace(gain=manifest["gain"], bias=manifest["bias"], read_at=read_at, metadata=manifest["metadata"])


def read_network(
    name_or_path: str | Path, *, dtype: str = "float32", revision: str | None = None, encoder_only: bool = False
) -> NetworkConfig:
    """Read what network a model is, from its config.json alone: no weights are fetched.

    Of an encoder-decoder the weights have the last word on whether its head is tied: here config.json has it. Raises
    UserError for a folder without a config.json, or one that this version does not read.
    """
    folder = find_folder(str(name_or_path), revision, weights=False)
    path = folder / "config.json"
    config = parse_config(read_json(path), str(path), dtype=dtype)
    return _Use("reward", dtype, None, encoder_only).part(config, folder)


def _check_manifest(manifest: dict[str, Any], folder: Path, role: Role) -> None:
    absent = _FIELDS.keys() - manifest.keys()
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(manifest.get(name), kind)]
    if absent or wrong or manifest["format"] != FORMAT:
        what = f"{wrong[0]} is {manifest.get(wrong[0])!r}" if wrong else "has another format"
        raise UserError(
            f"{folder / MANIFEST}: {'lacks ' + min(absent) if absent else what}; "
            "write the folder again with this version"
        )
    if role == "policy" and manifest["role"] != "policy":
        raise UserError(f"{folder}: holds a {manifest['role']} model; write the folder of a language model")


class _Use(NamedTuple):
    """What a model is loaded for."""

    role: Role
    dtype: str
    mesh: Mesh | None
    encoder_only: bool

    def part(self, config: NetworkConfig, folder: Path) -> NetworkConfig:
        """The network, or its encoder alone; raises UserError where that has no use."""
        if not self.encoder_only:
            return config
        if not isinstance(config, EncoderDecoderConfig):
            raise UserError(f"{folder}: is a decoder-only model ({config.family}) and has no encoder to use alone")
        if self.role != "reward":
            raise UserError(f"{folder}: an encoder alone gives scores, but is no {self.role}; use the whole model")
        # There is no head that could be tied.
        return config.replace(encoder_only=True, tie_embeddings=True)


class _Checkpoint(NamedTuple):
    """A base checkpoint with everything but its values read and checked."""

    folder: Path
    raw: dict[str, Any]
    files: TensorFiles
    config: NetworkConfig
    digest: str

    @property
    def metadata(self) -> dict[str, Any]:
        generation = self.folder / "generation_config.json"
        result: dict[str, Any] = {"generation_config": read_json(generation) if generation.is_file() else {}}
        if self.raw["model_type"] != self.config.family:
            result[WHOLE] = self.raw["model_type"]
        return result


def _open_checkpoint(folder: Path, use: _Use) -> _Checkpoint:
    raw = read_json(folder / "config.json")
    files = TensorFiles.of_folder(folder)
    config = use.part(parse_config(raw, str(folder / "config.json"), dtype=use.dtype), folder)
    config = settle_head(files, config)
    if SCORE in files.where:
        if use.role == "policy":
            raise UserError(f"{folder}: holds a sequence classifier; write the folder of a language model")
        # A classifier has no output head of its own, tied or not.
        config = config.replace(tie_embeddings=True)
    return _Checkpoint(folder, raw, files, config, fingerprint(files, folder / "config.json"))


def _load_base(folder: Path, name: str, use: _Use, *, adapter: tuple[Path, str] | None = None) -> Model:
    """Load a checkpoint; adapter: the folder of what is to go on top of it, and the digest that one names."""
    checkpoint = _open_checkpoint(folder, use)
    if adapter is not None and checkpoint.digest != adapter[1]:
        raise UserError(
            f"{folder}: is not the model that the adapter in {adapter[0]} was trained on (its content changed); "
            "put that model back, or train again"
        )
    # The tokenizer first: it is read in a moment, and what is wrong with it is then said in a moment.
    tokenizer = _load_tokenizer(folder, checkpoint.config)
    head = None
    if SCORE in checkpoint.files.where:
        checkpoint.files.check({SCORE: (1, checkpoint.config.embed)})
        kernel = checkpoint.files.read(SCORE, (slice(0, 1), slice(0, checkpoint.config.embed)))[0]
        head = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros((), jnp.float32)}
    return Model(
        config=checkpoint.config,
        params=read_params(checkpoint.files, checkpoint.config, use.mesh),
        tokenizer=tokenizer,
        role=use.role,
        head=head,
        bias=float(checkpoint.raw.get("reward_bias", 0.0)),
        base=str(folder.absolute()) if Path(name).exists() else name,
        base_digest=checkpoint.digest,
        metadata=checkpoint.metadata,
    )


def _load_adapted(
    folder: Path, manifest: dict[str, Any], use: _Use, *, base: str | Path | None, shared: Model | None
) -> Model:
    name = str(base or manifest["base"])
    if shared is not None and _can_share(shared, manifest, use):
        config = use.part(shared.config.replace(dtype=use.dtype), folder)
        params = shared.params
        if config != shared.config.replace(dtype=use.dtype):
            params = {part: params[part] for part in abstract_params(config)[0]}
        tokenizer = _load_tokenizer(folder, config)
        model = shared.replace(config=config, params=params, role=use.role, head=None, tokenizer=tokenizer)
    else:
        on_top = (folder, manifest["base_digest"])
        model = _load_base(_find_base(name, manifest, folder), name, use, adapter=on_top)
    path = folder / ADAPTER_CONFIG
    lora = parse_adapter_config(read_json(path), model.config, path)
    files = TensorFiles([folder / ADAPTER_WEIGHTS])
    return model.replace(lora=lora, adapter=read_adapter(files, model.config, lora, use.mesh))


def _can_share(shared: Model, manifest: dict[str, Any], use: _Use) -> bool:
    """Say whether a model has the base of an adapter, and all of it that is needed."""
    lacks_decoder = isinstance(shared.config, EncoderDecoderConfig) and shared.config.encoder_only
    return shared.base_digest == manifest["base_digest"] and (use.encoder_only or not lacks_decoder)


def _find_base(name: str, manifest: dict[str, Any], folder: Path) -> Path:
    try:
        return find_folder(name, manifest["metadata"].get("revision"))
    except UserError as error:
        raise UserError(f"{folder}: its base model is not there: {error}") from None


def _read_head(folder: Path, config: NetworkConfig) -> Tree:
    files = TensorFiles([folder / HEAD_WEIGHTS])
    files.check({"kernel": (config.embed,), "bias": (1,)})
    kernel, bias = files.read("kernel", (slice(0, config.embed),)), files.read("bias", (slice(0, 1),))
    return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias[0])}


def _load_tokenizer(folder: Path, config: NetworkConfig) -> Any:
    from podium.data.tokenizer import load_tokenizer

    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(f"{folder}: has no tokenizer; put the model's tokenizer.json beside its weights")
    tokenizer = load_tokenizer(folder, apart=isinstance(config, EncoderDecoderConfig))
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the embedding {config.vocab_size} rows; "
            "use the tokenizer that the model was trained with"
        )
    return tokenizer
