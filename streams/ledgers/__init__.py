"""What runs and services write down of their events."""
