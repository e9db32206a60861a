"""Where the work comes from: payloads, the S3 objects that they name, and S3 itself."""
