"""The files of a model folder: safetensors and JSON, read, written, and told apart by their contents."""
