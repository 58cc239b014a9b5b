"""Send each line of an input as a request and write one result per line. Start reading in `batch`."""
