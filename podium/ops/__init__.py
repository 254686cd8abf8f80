"""What networks compute, operation by operation: a reference that reads as the formula, and variants by platform.

A module here holds an operation's reference and decides which variant runs; `cpu`, `gpu` and `tpu` hold the variants.
Model files call the operations and know no platform.
"""
