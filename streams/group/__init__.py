"""A member of a consumer group, on any log."""
