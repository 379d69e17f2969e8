"""Runs ``python -m roadstream.bench.simulation``."""

from roadstream.bench.simulation.command import main

main()
