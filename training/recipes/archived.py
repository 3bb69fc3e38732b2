"""What recipes on public archives share: where the archive lies, and how to know that it is the right one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from training.config import RecipeConfig
from training.data.archive import Archive


@dataclass(frozen=True, kw_only=True)
class ArchivedConfig(RecipeConfig):
    """Also where the archive is."""

    archives: Path = Path("archives")
    """Folder of public archives, under their publishers' names; one that is not there is downloaded into it."""
    url: str
    """Where it is downloaded from; change it to use a mirror."""
    checksum: str
    """md5:<hex> or sha256:<hex> of the archive; empty to take it as it is."""

    @property
    def reads_files(self) -> bool:
        """Where no checksum fixes the archive."""
        return not self.checksum or super().reads_files

    def fetch(self, archive: Archive) -> Path:
        """The verified archive of the recipe, or :class:`training.errors.BadData` in one sentence."""
        return dataclasses.replace(archive, url=self.url, checksum=self.checksum).fetch(self.archives)
