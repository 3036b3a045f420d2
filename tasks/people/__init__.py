"""People: who decides, who asks, with which keys, and what they take along as evidence."""
