"""The steps of a recompression, one module for each line of the flow: fetch, call the core, record."""
