"""C code that replaces libc functions in the process under test, by LD_PRELOAD (ld.so(8))."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def preloaded(folder: Path, code: str) -> dict[str, str]:
    """Compile C code in a folder; return the environment that preloads it."""
    compiler = shutil.which("cc")
    if compiler is None:
        assert "CI" not in os.environ
        pytest.skip("there is no C compiler")
    source, library = folder / "preload.c", folder / "preload.so"
    source.write_text(code)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
