"""When a batch is formed, of what, and whose turn it is."""
