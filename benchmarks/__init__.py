"""Measured, not asserted: compare ratios of one run, never seconds of two."""
