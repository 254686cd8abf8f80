"""Weights in other forms (GGUF, Meta's folders, torch files, sentencepiece) made into Hugging Face folders."""

from podium.convert.importing import import_weights

__all__ = ["import_weights"]
