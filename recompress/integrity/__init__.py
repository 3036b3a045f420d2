"""Integrity: what bytes are, who signed them, and directories that are there in full or not at all."""
