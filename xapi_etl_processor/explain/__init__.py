"""What loading makes of lines, and why: for people who write bundles, or look for a value."""
