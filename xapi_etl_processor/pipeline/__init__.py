"""The steps that `common` puts together: batches, inserts, the rows of earlier versions."""
