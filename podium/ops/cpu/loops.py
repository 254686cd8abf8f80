"""How deep a stack of layers may be for XLA's CPU backend to gain from an unrolled loop."""

# A scan copies what the backward pass keeps into arrays for all layers, and out again.
MAX_UNROLLED = 8

# A scanned decode step copies every layer's weights for every token. A deep model pays more for the unrolled program
# than it gains: compiling takes minutes, scanned it takes seconds.
MAX_UNROLLED_DECODE = 32
