"""Name the container image of the stages, once."""

from podium.version import __version__

REPOSITORY = "podium/trainer"


def default_image(repository: str = REPOSITORY) -> str:
    """Return the image that holds this version; `platform.image` in the config replaces it at compile time."""
    return f"{repository}:{__version__}"
