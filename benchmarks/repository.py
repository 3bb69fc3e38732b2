"""Where the repository's folders are, whatever the working directory."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
