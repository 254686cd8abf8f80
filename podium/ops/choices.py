"""What a network may choose from. Imports nothing: model families are read without a numerical library."""

from typing import Literal

Activation = Literal["silu", "gelu_tanh", "gelu", "relu"]
# "auto" is that of the platform that JAX runs on. A program that is compiled for another platform names it.
Implementation = Literal["auto", "reference", "cpu", "gpu", "tpu"]
# What the backward pass keeps of a layer. none: everything; dots: the products with kernels and what attention gave;
# full: the layer's input alone.
Kept = Literal["none", "dots", "full"]
