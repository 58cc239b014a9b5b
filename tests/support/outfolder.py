"""What stands beside the file of `-o`, as a user sees it."""

from pathlib import Path


def partial(out: Path) -> Path:
    """Return the file in the making beside `out`."""
    return out.with_name(f"{out.name}.partial")


def names(out: Path) -> list[str]:
    """Return what is in the folder of `out`."""
    return sorted(path.name for path in out.parent.iterdir())
