"""What each experiment of the pipeline trains on, its loss and its scores: a ``TASK`` a module."""
