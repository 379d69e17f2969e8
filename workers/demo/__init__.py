"""Pictures that are drawn: streets with and without roadwork."""
