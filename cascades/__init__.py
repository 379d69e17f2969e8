"""The cascades that ship, as TOML files beside their weights."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Where they lie."""
