"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe() -> str:
    """Processor and cores, and the CUDA device if torch sees one."""
    processor = f"{_processor()}, {os.cpu_count()} cores"
    return f"{processor}; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else processor


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
