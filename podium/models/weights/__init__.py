"""Foreign names and files of weights: `config.json`, safetensors, GGUF."""
