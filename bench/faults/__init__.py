"""The fault campaign: real processes, real faults, every answer checked. See ``docs/faults.md``."""
