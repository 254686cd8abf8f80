"""Write what is compiled from the sources and kept beside them: `python -m podium_pipelines.specs`.

These are the specs of the pipeline under `pipelines/specs` and the table of components in `components/README.md`.
"""

from pathlib import Path
from typing import Final, Literal

from kfp.dsl.structures import InputSpec, OutputSpec

import podium_components
from podium.config import STAGES, load_config
from podium_pipelines.compiler import compile_text

ROOT: Final = Path(__file__).parents[2]
TARGETS: Final[tuple[Literal["kubeflow", "vertex"], ...]] = ("kubeflow", "vertex")
BEGIN, END = "<!-- components -->\n", "<!-- /components -->\n"


def generated() -> dict[Path, str]:
    """Return the text of every generated file by its path."""
    readme = ROOT / "components" / "README.md"
    return {
        **{ROOT / "pipelines" / "specs" / f"rlhf-{target}.yaml": spec(target) for target in TARGETS},
        readme: with_table(readme.read_text(encoding="utf-8")),
    }


def spec(target: Literal["kubeflow", "vertex"]) -> str:
    """Compile the example of a target; the image has the tag `dev`, so that a new version changes no spec."""
    config = load_config(ROOT / "pipelines" / "params" / f"{target}.yaml", ["platform.image=podium/trainer:dev"])
    return compile_text(config, target)


def with_table(readme: str) -> str:
    """Put the table of components between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + component_table() + END + after


def component_table() -> str:
    """Return one Markdown row per component, from its signature."""
    rows = ["| Component | What it does | Inputs | Outputs |", "| --- | --- | --- | --- |"]
    for stage in STAGES:
        component = getattr(podium_components, stage).component_spec
        cells = (f"`{stage}`", component.description, _ports(component.inputs), _ports(component.outputs))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _ports(ports: dict[str, InputSpec] | dict[str, OutputSpec]) -> str:
    return ", ".join(f"`{name}` {_type_name(port.type)}{_spare(port)}" for name, port in ports.items())


def _spare(port: InputSpec | OutputSpec) -> str:
    return " (optional)" if isinstance(port, InputSpec) and port.optional else ""


def _type_name(name: str) -> str:
    """Turn `system.Model@0.0.1` into Model and `Dict` into dict."""
    return name.removeprefix("system.").partition("@")[0] if "@" in name else name.lower()


if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
