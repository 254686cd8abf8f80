"""Turn a stage name into the container that runs it."""

from kfp import dsl

from podium_components._image import default_image

PROGRAM = ("python", "-m", "podium")


def stage_container(stage: str) -> dsl.ContainerSpec:
    """Return the container of one stage.

    Everything the stage needs (its config, where its inputs are, where its outputs go) is in the executor input,
    which every runner of KFP puts in place of `{{$}}`. A stage that reads it needs no flag per artifact and no kfp.
    """
    return dsl.ContainerSpec(
        image=default_image(),
        command=[*PROGRAM, stage],
        args=["--executor-input", "{{$}}"],
    )
