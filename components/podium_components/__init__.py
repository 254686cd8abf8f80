"""Typed Kubeflow Pipelines container components, one per phase."""
