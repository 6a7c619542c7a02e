"""Published data sets, read from their own files."""
