"""A phase on several hosts of a Kubernetes cluster: one TrainJob of Kubeflow Trainer, or one JobSet."""
