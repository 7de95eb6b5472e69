"""Corpora and media files to embeddings and regions: for evaluation, probes, search indexes and stored embeddings."""
