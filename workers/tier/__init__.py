"""The worker of one tier."""
