"""Pieces of bytes -> events -> chunks -> the outcome. Begin with `pump`; the only importer of sseclient. Pure."""
