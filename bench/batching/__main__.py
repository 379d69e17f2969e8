"""Runs ``python -m bench.batching``."""

from bench.batching.command import main

main()
