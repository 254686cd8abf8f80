"""What a file of this folder says of its family."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from podium.models.config import NetworkConfig
from podium.models.families.names import Names
from podium.models.families.options import Options


class Family(NamedTuple):
    """How the models of one model_type are read and written.

    parse: reads config.json for a compute dtype; defaults: what transformers assumes for keys that it leaves out.
    write: gives the keys of config.json; names: names the tensors of a network.
    architecture: transformers' class of the language model; classifier: that with one linear head in the language
    model's place, None where it has none.
    """

    parse: Callable[[Options, str], NetworkConfig]
    defaults: Mapping[str, Any]
    write: Callable[[Any], dict[str, Any]]
    names: Callable[[Any], Names]
    architecture: str
    classifier: str | None = None
