"""Benchmarks. Compare ratios within one run, never seconds between two."""
