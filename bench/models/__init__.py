"""Engines and members."""
