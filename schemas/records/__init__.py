"""The records of the stream."""
