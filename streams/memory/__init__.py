"""The log in memory: the same contract without a disk, with faults on demand. The test kit."""
