"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """One line: date, processor, cores, Python, onnxruntime."""
    day = datetime.now(UTC).date().isoformat()
    packages = ", ".join(f"{name} {_version(name)}" for name in ("onnxruntime-gpu", "fastapi", "uvicorn"))
    return f"{day}; {_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}; {packages}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "absent"
