"""One file an experiment: its claim, loss, scores and references."""
