"""One supervised training loop, and the run folder that it can be killed in and resumed from."""
