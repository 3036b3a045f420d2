"""Running: one recompression at a time, its Prefect server, and what a machine needs for it."""
