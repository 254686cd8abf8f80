"""Hold the mathematics as pure functions of arrays: no model, no config, no state. docs/rlhf.md explains each."""
