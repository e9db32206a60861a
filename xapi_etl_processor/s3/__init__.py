"""Objects of S3: named, listed, described and read."""
