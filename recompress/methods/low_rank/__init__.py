"""Low rank: a matrix as the product of two smaller ones."""
