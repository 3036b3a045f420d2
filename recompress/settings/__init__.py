"""Settings: what a person writes, read strictly; a wrong key or value is named with its line and the nearest right word."""
