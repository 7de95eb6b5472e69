"""Retrieval: scores of queries with items, and what is measured with them."""
