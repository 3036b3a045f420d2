"""Pruning: weights set to zero, and structures cut out."""
