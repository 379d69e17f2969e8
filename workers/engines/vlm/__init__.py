"""What engines for vision-language models share, wherever the model runs."""
