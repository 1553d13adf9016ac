"""Signals: recordings, simulators, impairments, channels."""
