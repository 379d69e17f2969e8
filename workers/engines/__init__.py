"""Inference engines, one module per device library."""
