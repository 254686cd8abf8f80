"""Mesh, logical axes, multi-host start."""
