"""Files as they come, read row by row; what cannot be read is named with its file and line."""
