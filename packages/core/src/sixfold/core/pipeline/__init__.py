"""A domain's experiments: tasks, stages, verdicts and the report.

A domain writes one module ``tasks/<name>.py`` an experiment, with `Task`, `Claim`, `Metric`,
`Comparison`, `Measurement` and `supervised`; everything else is done here once.
"""
