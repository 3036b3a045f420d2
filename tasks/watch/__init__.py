"""Watching: where sources are looked at, who looks, what a change starts, and who is told."""
