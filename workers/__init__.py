"""Who runs it: tier workers, engines, supervisor, command line, and the API for Python."""
