"""What is done to an image: decode, infer, vote, route."""
