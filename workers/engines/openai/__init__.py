"""Remote servers that speak the OpenAI chat protocol."""
