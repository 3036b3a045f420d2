"""What a recipe depends on, what a look at it saw, and what has to be done about it. Nothing here looks anywhere or runs anything."""
