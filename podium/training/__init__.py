"""Hold what every training stage needs beside its own step: optimizer, checkpoints, metrics, progress."""
