"""What a process says of itself: health, lag, metrics, a line a minute."""
