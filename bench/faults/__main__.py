"""Runs ``python -m roadstream.bench.faults``."""

from roadstream.bench.faults.command import main

main()
