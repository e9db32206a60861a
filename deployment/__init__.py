"""How the project gets to AWS. Of this folder, only index.py runs there."""
