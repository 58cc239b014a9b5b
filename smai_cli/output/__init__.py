"""Deliver chunks and outcomes to stdout, stderr and files. Start reading in `writers`."""
