"""From scores to votes, and where an image goes next."""
