"""The experiments of the graphs pipeline: what each trains, and how it is scored."""
