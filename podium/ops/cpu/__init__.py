"""Variants that XLA's CPU backend runs faster: barriers, turned layouts, unrolled loops, gradients written by hand.

docs/benchmarks.md says what each gained. No other package needs any of it.
"""
