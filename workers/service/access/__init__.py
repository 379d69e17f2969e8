"""From a ``--log`` argument to a log that is fit for a cascade."""
