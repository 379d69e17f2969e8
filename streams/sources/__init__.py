"""Image sources: files, folders, lists, videos, and the synthetic drive."""
