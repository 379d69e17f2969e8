"""Files of answers, and other tables."""
