"""Is it all there: compares what S3 has with what is stored, and puts it right."""
