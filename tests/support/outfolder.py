"""The files next to the file of `-o`."""

from pathlib import Path


def partial(out: Path) -> Path:
    """Return the partial file of `out`."""
    return out.with_name(f"{out.name}.partial")


def names(out: Path) -> list[str]:
    """Return the names of the files in the folder of `out`."""
    return sorted(path.name for path in out.parent.iterdir())
