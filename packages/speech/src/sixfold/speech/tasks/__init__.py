"""The experiments of the speech pipeline, one module each; the pipeline finds each by its name."""
