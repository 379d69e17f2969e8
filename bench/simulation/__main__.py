"""Runs ``python -m bench.simulation``."""

from bench.simulation.command import main

main()
