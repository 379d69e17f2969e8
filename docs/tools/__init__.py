"""What `make docs` runs: the reference, and the pages of files that are not in ``docs/``."""
