"""Runs where vLLM is installed, not where Roadstream is: started as a script, by path."""
