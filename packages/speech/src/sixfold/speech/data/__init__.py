"""Recordings, synthetic data, and the mixtures that the tasks train and test on."""
