"""The walls of the house: training -> bundle <- service, and nothing else crosses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "bundle": {"torch", "fastapi", "training", "service"},
    "service": {"torch", "training"},
    "training": {"fastapi", "uvicorn", "service"},
}


def imports(file: Path) -> set[str]:
    """Top-level packages that `file` imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_imports_through_a_wall(package: str):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    crossing = {str(file): imports(file) & FORBIDDEN[package] for file in files}
    assert {file: names for file, names in crossing.items() if names} == {}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bundle", "torch fastapi onnxruntime"),
        ("bundle.reference", "torch fastapi"),
        ("service.app", "torch training onnxscript matplotlib sklearn"),
        ("service.client", "torch training fastapi onnxruntime"),
    ],
)
def test_importing_does_not_load(module: str, absent: str):
    check = f"import sys, {module}; print([name for name in {absent.split()!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_training_without_its_extra_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import training.cli"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "install it with `pip install '.[train]'`" in ended.stderr.splitlines()[-1]
