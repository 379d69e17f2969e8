"""Models on a Triton server, by gRPC."""
