"""What Kubeflow Trainer, JobSet and Podium call their kinds and objects on a cluster."""

# Group and version.
TRAINER = ("trainer.kubeflow.org", "v1alpha1")
JOBSET = ("jobset.x-k8s.io", "v1alpha2")
# The TrainingRuntime of a namespace that TrainJobs of Podium refer to.
RUNTIME = "podium"
# What every job of hosts, and each of its pods, bears: the name of its run.
RUN_LABEL = "podium.dev/run"
# Seconds that the pods of a cancelled run have.
LAST_S = 5
