"""The commands of the command line: each module adds its own and runs them."""
