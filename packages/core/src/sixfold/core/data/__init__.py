"""Benchmark data: fetched with checksums, written all or nothing."""
