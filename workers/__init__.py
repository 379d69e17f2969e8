"""Who runs it: tier workers, engines, supervisor, command line."""
