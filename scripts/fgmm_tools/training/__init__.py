"""Pretraining: configuration, set-up, checkpoints, gradient cache and tokenizer; the loop is in scripts/pretrain.py."""
