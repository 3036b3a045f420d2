"""A project of one's own, begun anywhere: what the data looks like, which dials follow from it, and files that appear together or not at all."""
