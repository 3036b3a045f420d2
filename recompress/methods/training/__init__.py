"""Training as steps of a recipe: further training, and adapters that recover what was lost."""
