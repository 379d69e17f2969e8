"""Runs ``python -m roadstream.bench.engine``."""

from roadstream.bench.engine.command import main

main()
