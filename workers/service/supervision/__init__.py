"""Child processes: how they are started, watched, started again and ended."""
