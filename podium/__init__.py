"""Podium aligns a language model with human preferences."""

from podium.version import __version__

__all__ = ["__version__"]
