"""The stream alone, without models, beside its peers."""
