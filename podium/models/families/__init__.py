"""Model families, a file each: how config.json is read and written, and what transformers calls the tensors."""
