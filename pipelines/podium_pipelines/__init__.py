"""Pipelines over the components: compile, run here, submit."""
