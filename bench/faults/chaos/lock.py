"""Holds the lock of an embedded log's file, as a backup or somebody's shell might."""

import sqlite3
import sys
import time


def main() -> None:
    """Take the write lock of the file named first, for the seconds named second."""
    connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    connection.execute("ROLLBACK")
    connection.close()


if __name__ == "__main__":
    main()
