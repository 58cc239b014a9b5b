"""The lines of an input and of its shards -> requests."""
