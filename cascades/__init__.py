"""The cascades that ship, as TOML files beside their weights."""
