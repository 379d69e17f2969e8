"""What ``roadstream verify`` looks for: pure comparisons of what was sent, done and answered."""
