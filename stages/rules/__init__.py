"""Scores by rule: from colours, texts and tokens."""
