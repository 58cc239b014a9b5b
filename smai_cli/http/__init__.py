"""A request -> HTTP -> pieces of bytes. Begin with `transport`; the only importer of requests and urllib3."""
