"""A model's tokenizer without its weights, and without loading JAX: all that reading data needs."""

from podium.data.tokenizer import Tokenizer, load_tokenizer
from podium.models.config import EncoderDecoderConfig
from podium.models.families.config_json import parse_config
from podium.models.hub import find_folder
from podium.models.weights.json_file import read_json


def load_tokenizer_of(name_or_path: str, revision: str | None) -> Tokenizer:
    """Load a model's tokenizer as `load` gives it. Raises UserError, also for a network that no stage could run."""
    folder = find_folder(name_or_path, revision, weights=False)
    config = folder / "config.json"
    parsed = parse_config(read_json(config), str(config)) if config.is_file() else None
    return load_tokenizer(folder, apart=isinstance(parsed, EncoderDecoderConfig))
