"""Broken inputs for every decoder of the product."""
