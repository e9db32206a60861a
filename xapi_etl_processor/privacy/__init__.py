"""Rights of learners: to see what is held of them, and to be forgotten."""
