"""Processes that can be hurt, and what they should have said."""
