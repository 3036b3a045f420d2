"""When the work happens: one flow in one file, each a table of contents. ``cli.py`` is the person's door."""
