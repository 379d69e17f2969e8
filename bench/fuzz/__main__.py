"""Runs ``python -m roadstream.bench.fuzz``."""

from roadstream.bench.fuzz.command import main

main()
