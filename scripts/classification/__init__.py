"""The parts of scripts/evaluate_classification.py: folds and labels, windows, probes, training, metrics."""
