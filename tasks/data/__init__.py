"""Data on disk: DVC pins and fetches it, Great Expectations checks it."""
