"""Where records end: the consensus join, answer files, reports, evaluation."""
