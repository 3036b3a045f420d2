"""Slimming: leaving out what the data at hand never uses."""
