"""Judge a reward model and a tuned policy: intervals, comparisons, drift, and the report."""
