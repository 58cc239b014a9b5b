"""The APIs, each as a module: requests -> bodies, events -> chunks. Begin with `selection`."""
