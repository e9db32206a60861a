"""How the project gets to AWS; nothing of it runs there but index.py."""
