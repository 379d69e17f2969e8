"""Logs and their ports, offsets, clocks, and the sources that turn files into image records."""
