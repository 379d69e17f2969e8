"""The log in memory: the same contract without a disk, and with faults on demand for tests."""
