"""What is set outside of a command line: the configuration file, the endpoint and its key, the models last listed."""
