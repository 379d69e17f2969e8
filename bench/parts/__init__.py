"""Single parts of the product."""
