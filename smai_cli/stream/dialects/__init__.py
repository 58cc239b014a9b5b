"""The APIs, each as a module: requests -> bodies, events -> chunks. Start with `chat`."""
