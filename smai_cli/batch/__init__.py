"""Many requests: the lines of an input -> one result each. `batch` joins the parts, and is read first."""
