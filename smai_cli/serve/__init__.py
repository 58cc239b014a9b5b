"""The gateway of `smai serve`: a page and the API for this machine. The key stays in the process."""
