"""The product on the in-memory log in virtual time, under random faults that replay."""
