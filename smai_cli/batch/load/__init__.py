"""How many requests run at once and when the next one starts."""
