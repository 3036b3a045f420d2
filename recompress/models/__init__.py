"""Models: architectures and their parts, checkpoints on disk, and weights that are cut, shared, factored or packed."""
