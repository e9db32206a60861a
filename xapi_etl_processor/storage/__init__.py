"""What is stored: batches, the ledger, the tables and their migrations."""
