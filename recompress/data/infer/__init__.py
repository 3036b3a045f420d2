"""How data would be read that nobody has described: format, columns, tags, splits, from what stands in the files."""
