"""What ``import roadstream`` offers."""
