"""The HTML report on a file of answers."""
