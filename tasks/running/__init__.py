"""Running: one recompression of a recipe at a time, what it holds meanwhile, and its Prefect server."""
