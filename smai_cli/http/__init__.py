"""A request -> HTTP -> pieces of bytes. Start with `transport`. The only importer of requests and urllib3."""
