"""The page: what a run found, in one file that opens offline."""
