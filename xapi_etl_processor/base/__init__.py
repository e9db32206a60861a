"""What every room uses: settings, errors, deadlines, secrets, logs and metrics."""
