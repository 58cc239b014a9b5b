"""The settings outside of the command line: the configuration file, the endpoint and its key, recent model ids."""
