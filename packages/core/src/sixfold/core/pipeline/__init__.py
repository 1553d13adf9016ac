"""A domain's experiments: tasks, stages, verdicts and the report."""
