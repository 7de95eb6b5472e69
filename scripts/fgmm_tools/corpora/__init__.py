"""Corpora that are written: Parquet shards, benchmarks in their published layouts, slide shows, rendered clips."""
