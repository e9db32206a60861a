"""xAPI: bytes to lines to statements to columns. Pure: imports nothing else of the package."""
