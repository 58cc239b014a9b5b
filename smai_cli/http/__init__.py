"""A request -> HTTP -> pieces of bytes. Start with `exchange`. The only importer of requests and urllib3."""
