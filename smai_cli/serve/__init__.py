"""The gateway of smai serve: a page and the API on this machine, with the key kept behind it."""
