"""The scoring job."""
