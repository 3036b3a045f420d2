"""The ledger where this project keeps it: opened, anchored in the registry, and signed with the keys that are believed."""
