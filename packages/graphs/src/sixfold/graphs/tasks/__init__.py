"""The experiments of the graphs pipeline, one module each; the pipeline finds each by its name."""
