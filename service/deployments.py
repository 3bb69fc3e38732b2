"""The bundles that are served. The table belongs to the event loop's thread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bundle import Bundle, BundleNotFound, Manifest, list_names, open_bundle
from service.engine.profile import Profile
from service.errors import UnknownModel, UnknownVersion


@dataclass(slots=True, eq=False)
class Deployment:
    """One version of one bundle, on the device."""

    bundle: Bundle
    profile: Profile
    leases: int = 0
    """Requests in flight and kept states that need its members."""
    retired: bool = False
    """Whether it takes no new requests: it leaves the device with its last lease."""
    manifest: Manifest = field(init=False)
    """What the bundle says of itself."""
    key: str = field(init=False)
    """`name/version`: what the engine and the metrics call it."""

    def __post_init__(self) -> None:
        # Looked up by every request, several times.
        self.manifest = self.bundle.manifest
        self.key = f"{self.manifest.name}/{self.manifest.version}"

    @classmethod
    def of(cls, bundle: Bundle) -> Deployment:
        """Serve an opened bundle."""
        return cls(bundle, Profile.of(bundle.manifest))


class Deployments:
    """All served bundles, found by name and version."""

    def __init__(self, bundles: Iterable[Bundle]) -> None:
        self._by_name: dict[str, dict[int, Deployment]] = {}
        for bundle in bundles:
            self.add(Deployment.of(bundle))

    @classmethod
    def open(cls, models_dir: Path, wanted: Iterable[str]) -> Deployments:
        """Open the wanted bundles (`name` or `name/version`), or the highest version of all there are.

        Raises:
            BundleError: one cannot be opened, or there is none.
        """
        entries = list(wanted) or list_names(models_dir)
        if not entries:
            raise BundleNotFound(
                f"There is no bundle in {models_dir}: train one with `train-ensemble digits`, "
                "or say where they are with ANYTIME_MODELS_DIR."
            )
        return cls(_open(models_dir, entry) for entry in entries)

    def add(self, deployment: Deployment) -> None:
        """Let requests find it."""
        manifest = deployment.manifest
        self._by_name.setdefault(manifest.name, {})[manifest.version] = deployment

    def remove(self, deployment: Deployment) -> None:
        """Let no further request find it."""
        versions = self._by_name[deployment.manifest.name]
        del versions[deployment.manifest.version]
        if not versions:
            del self._by_name[deployment.manifest.name]

    def all(self) -> list[Deployment]:
        """Every served version, by name and version."""
        return [one for name in sorted(self._by_name) for one in self.versions(name)]

    def versions(self, name: str) -> list[Deployment]:
        """Every served version of one name, ascending; empty when there is none."""
        return [one for _, one in sorted(self._by_name.get(name, {}).items())]

    def find(self, name: str | None, version: int | None = None) -> Deployment:
        """The deployment that a request means.

        Raises:
            UnknownModel: no such name; or no name, and there are several.
            UnknownVersion: the name is served in other versions.
        """
        names = ", ".join(sorted(self._by_name))
        if name is None:
            if len(self._by_name) > 1:
                raise UnknownModel(f"Several models are served: say which in `model`: {names}.")
            name = next(iter(self._by_name), "")
        if not self._by_name:
            raise UnknownModel("No model is served here at the moment: load one with POST /models/{name}/load.")
        versions = self._by_name.get(name)
        if versions is None:
            raise UnknownModel(f"No model {name!r} is served here; there are: {names}.")
        if version is None:
            version = max(versions)
        if version not in versions:
            served = ", ".join(map(str, sorted(versions)))
            raise UnknownVersion(f"Model {name!r} is not served in version {version}; served: {served}.")
        return versions[version]


def _open(models_dir: Path, entry: str) -> Bundle:
    name, _, version = entry.partition("/")
    return open_bundle(models_dir, name, int(version) if version else None)
