"""Prefill, decode, token choice; prompts in, completions out."""

from podium.generation.sampler import Completions, generate

__all__ = ["Completions", "generate"]
