"""Classification: folds and labels, features, probes, fine-tuning, metrics."""
