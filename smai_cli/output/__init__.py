"""Chunks and outcomes -> stdout, stderr and files. Begin with `writers`."""
