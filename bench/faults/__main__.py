"""Runs ``python -m bench.faults``."""

from bench.faults.command import main

main()
