"""The experiments of the vision pipeline, one module each; the pipeline finds each by its name."""
