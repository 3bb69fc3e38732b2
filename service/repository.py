"""Versions come and go while requests are answered.

    models folder ──> verified ──> on the device, measured ──> takes the traffic ──> retired ──> off the device
                         └─ bad: the old version goes on serving,                      with its last lease
                            and the reason is logged, counted and shown

A request holds a *lease* on its deployment from the moment it is found until the answer is decided, and a kept
state until it is dropped. All of it belongs to the event loop; files are read and sessions are opened elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle import Bundle, BundleError, BundleNotFound, InvalidBundle, list_names, list_versions, open_bundle
from service.deployments import Deployment, Deployments
from service.engine.host import Host
from service.engine.worker import WorkerStopped
from service.metrics import Metrics

log = logging.getLogger(__name__)

Mark = tuple[tuple[str, int, int], ...]
"""Name, size and time of each file in a version's folder: whether it has changed since it was found bad."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that could not be loaded."""

    name: str
    version: int | None
    """None when the highest was asked for and there is none."""
    detail: str
    mark: Mark = ()


class Repository:
    """Loads and retires the deployments of one service.

    Args:
        models_dir: folder of bundles.
        wanted: entries of the setting `models`; empty means all there are.
        deployments: what is served; changed here and nowhere else.
        host: brings models onto the device.
        metrics: counts loads, and forgets what has been unloaded.
    """

    def __init__(
        self,
        models_dir: Path,
        wanted: tuple[str, ...],
        deployments: Deployments,
        host: Host,
        metrics: Metrics,
    ) -> None:
        self._models_dir = models_dir
        self._wanted = wanted
        self._pinned = {entry for entry in wanted if "/" in entry}
        self._deployments = deployments
        self._host = host
        self._metrics = metrics
        self._loading = asyncio.Lock()
        self._seen = {one.manifest.name: one.manifest.version for one in deployments.all()}
        self._retiring: dict[str, Deployment] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: dict[str, Failure] = {}

    @property
    def failures(self) -> list[Failure]:
        """The latest failure of each name whose latest load failed."""
        return [failure for _, failure in sorted(self._failures.items())]

    @contextmanager
    def lease(self, deployment: Deployment) -> Iterator[None]:
        """Keep a deployment on the device until the block ends."""
        self.hold(deployment)
        try:
            yield
        finally:
            self.release(deployment)

    def hold(self, deployment: Deployment) -> None:
        """Take a lease."""
        deployment.leases += 1

    def release(self, deployment: Deployment) -> None:
        """Give a lease back; with the last one, a retired deployment leaves the device."""
        deployment.leases -= 1
        self._drop_if_unused(deployment)

    async def load(self, name: str, version: int | None = None) -> Deployment:
        """Serve `name` in `version` (default: the highest), in place of the version served now.

        Returns when traffic has moved. A version that the settings pin stays beside it.

        Raises:
            BundleError: there is no such bundle, or it is bad; what was served still is.
            WorkerStopped: the device thread has ended.
        """
        async with self._loading:
            # Before it is opened: what is copied into it meanwhile makes it another, which may be good.
            version, mark = await asyncio.to_thread(self._look_at, name, version)
            try:
                bundle = await asyncio.to_thread(open_bundle, self._models_dir, name, version)
                deployment = await self._bring(bundle)
            except BundleNotFound:
                raise
            except (BundleError, WorkerStopped) as error:
                self._note(name, version, mark, error)
                raise
            self._failures.pop(name, None)
            self._move_traffic(deployment)
            return deployment

    def unload(self, name: str, version: int | None = None) -> list[Deployment]:
        """Serve `name` no more (or not in `version`): what leaves the device with its last lease, or is leaving it.

        Raises:
            UnknownModel: it is not served.
            UnknownVersion: it is served in other versions only.
        """
        found = self._deployments.find(name, version)
        leaving = [found] if version is not None else self._deployments.versions(name)
        retired = [one for one in self._retiring.values() if one.manifest.name == name and version is None]
        for deployment in leaving:
            self._retire(deployment)
        return retired + leaving

    async def poll_forever(self, interval_s: float) -> None:
        """Look for new versions every `interval_s` seconds."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.poll()
            except Exception:
                # Whatever it was, versions must go on being picked up.
                log.exception("could not look for new versions; looking again in %g s", interval_s)

    async def poll(self) -> None:
        """Load the highest version of each name that follows its highest, unless it was seen before."""
        for name, (version, mark) in (await asyncio.to_thread(self._scan)).items():
            failure = self._failures.get(name)
            unchanged = failure is not None and (failure.version, failure.mark) == (version, mark)
            if (version is None or version > self._seen.get(name, 0)) and not unchanged:
                try:
                    await self.load(name, version)
                except (BundleError, WorkerStopped):
                    # Said and counted already; the old version goes on.
                    continue

    async def close(self) -> None:
        """Wait for what is being unloaded."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _bring(self, bundle: Bundle) -> Deployment:
        """The bundle's deployment, on the device."""
        deployment = Deployment.of(bundle)
        for present in (*self._deployments.all(), *self._retiring.values()):
            if present.key == deployment.key:
                if present.manifest != deployment.manifest:
                    raise InvalidBundle(
                        f"{bundle.path} is not what it was when it was loaded: a version never changes, so write "
                        "what is new as another version."
                    )
                return present
        if self._tasks:
            # The same version may be leaving the device at this moment.
            await self.close()
        await self._host.load(deployment.key, bundle)
        return deployment

    def _move_traffic(self, deployment: Deployment) -> None:
        name = deployment.manifest.name
        present = self._deployments.versions(name)
        if deployment not in present:
            self._retiring.pop(deployment.key, None)
            deployment.retired = False
            self._metrics.serve(deployment.key, deployment.manifest)
            self._deployments.add(deployment)
            self._seen[name] = max(self._seen.get(name, 0), deployment.manifest.version)
            self._metrics.loaded("loaded")
        replaced = [one for one in present if one is not deployment and one.key not in self._pinned]
        for old in replaced:
            self._retire(old)
        log.info("serving %s; retired: %s", deployment.key, ", ".join(old.key for old in replaced) or "none")

    def _retire(self, deployment: Deployment) -> None:
        self._deployments.remove(deployment)
        deployment.retired = True
        self._retiring[deployment.key] = deployment
        self._drop_if_unused(deployment)

    def _drop_if_unused(self, deployment: Deployment) -> None:
        if not deployment.retired or deployment.leases:
            return
        if self._retiring.pop(deployment.key, None) is not None:
            task = asyncio.get_running_loop().create_task(self._drop(deployment.key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drop(self, key: str) -> None:
        try:
            await self._host.unload(key)
        except WorkerStopped:
            # A fresh executor will not have it.
            log.info("%s went with the device thread", key)
        self._metrics.forget(key)
        self._metrics.loaded("unloaded")
        log.info("unloaded %s", key)

    def _note(self, name: str, version: int | None, mark: Mark, error: Exception) -> None:
        """Say why a version is not served: in the log, the metrics, and `GET /models`."""
        # A bundle that the device thread died on may be sound: it is tried again, changed or not.
        mark = () if isinstance(error, WorkerStopped) else mark
        detail = without_folder(error, self._models_dir)
        self._failures[name] = Failure(name, version, detail, mark)
        self._metrics.loaded("failed")
        log.error("%s is not loaded: %s", f"{name}/{version}" if version else name, error)

    def _scan(self) -> dict[str, tuple[int | None, Mark]]:
        """What `_look_at` finds of each name that follows the highest version in its folder."""
        names = [entry for entry in self._wanted if "/" not in entry] if self._wanted else list_names(self._models_dir)
        return {name: self._look_at(name, None) for name in names}

    def _look_at(self, name: str, version: int | None) -> tuple[int | None, Mark]:
        """The version that is meant, None if there is none or it cannot be told, and what is in its folder."""
        try:
            versions = list_versions(self._models_dir, name)
        except InvalidBundle:
            return version, ()
        version = max(versions, default=None) if version is None else version
        return version, _mark(self._models_dir / name / str(version)) if version in versions else ()


def without_folder(error: Exception, models_dir: Path) -> str:
    """The sentence of an error for clients, who need not know where the models folder is."""
    return str(error).replace(f"{models_dir}/", "").replace(str(models_dir), "the models folder")


def _mark(folder: Path) -> Mark:
    """What tells one content of a folder from another, without reading it."""
    try:
        return tuple(_stamp(entry) for entry in sorted(folder.iterdir()))
    except OSError:
        return ()


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        stat = file.stat()
    except OSError:
        # A link to nowhere, or gone since the folder was listed: whoever opens the bundle says what that means.
        return file.name, 0, 0
    return file.name, stat.st_size, stat.st_mtime_ns
