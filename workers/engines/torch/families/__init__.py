"""One adapter per family of checkpoints."""
