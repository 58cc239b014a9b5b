"""The commands of smai, one in each module, except batch."""
