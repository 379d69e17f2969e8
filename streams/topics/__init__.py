"""Whose topics these are."""
