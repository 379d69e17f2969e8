"""Processes that serve for ever."""
