"""Cascade files."""
