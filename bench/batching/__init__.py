"""The batcher against the batching policies of others, on the same arrivals, in virtual time."""
