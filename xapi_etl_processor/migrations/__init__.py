"""Create and change the tables and views; only the command line does."""
