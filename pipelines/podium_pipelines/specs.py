"""Write the compiled pipelines that are kept under `pipelines/specs`: `python -m podium_pipelines.specs`."""

from pathlib import Path
from typing import Final, Literal

from podium.config import load_config
from podium_pipelines.compiler import compile_text

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final[tuple[Literal["kubeflow", "vertex"], ...]] = ("kubeflow", "vertex")


def specs() -> dict[Path, str]:
    """Return the text of every kept spec by its path.

    The image has the tag `dev`, so that a new version changes no spec.
    """
    return {
        ROOT / "specs" / f"rlhf-{target}.yaml": compile_text(
            load_config(ROOT / "params" / f"{target}.yaml", ["platform.image=podium/trainer:dev"]), target
        )
        for target in TARGETS
    }


if __name__ == "__main__":
    for path, text in specs().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
