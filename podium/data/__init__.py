"""Preference and prompt data: files in, canonical records, tokens and fixed-shape batches out."""
