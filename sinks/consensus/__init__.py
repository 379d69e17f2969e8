"""Joins the votes of each image and answers it once."""
