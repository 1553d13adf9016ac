"""Recordings, synthetic stand-ins, and the mixtures that the tasks train and test on."""
