"""The fault campaign: real processes and faults, all answers checked (docs/operate/faults.md)."""
