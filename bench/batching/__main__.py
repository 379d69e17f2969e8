"""Runs ``python -m roadstream.bench.batching``."""

from roadstream.bench.batching.command import main

main()
