"""Data: read as it comes, cleaned and counted, split, and read back."""
