"""Linear layers by weight format; one file a format."""
