"""Versions that come and go, on a real device thread and the test's own event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bundle import Bundle, BundleNotFound, InvalidBundle, write_bundle
from bundle.store import encode_manifest
from service.app import create_app
from service.context import Context
from service.deployments import Deployment
from service.engine.cpu import CpuExecutor
from service.engine.step import Step
from service.engine.ticket import Logits
from service.errors import UnknownModel
from service.settings import Settings
from tests.tiny import tiny_graph, tiny_manifest, write_tiny
from tests.unreadable import readable_by_all, unreadable

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(models: Path, /, executor: CpuExecutor | None = None, **changes: object) -> AsyncIterator[Context]:
    """The inside of a service, without its HTTP side."""
    executor = executor or CpuExecutor(threads=1)
    settings = Settings(models_dir=models, device="cpu", max_batch_rows=2, **changes)
    context = create_app(settings, executor=executor).state.context
    context.gate.open(asyncio.get_running_loop())
    context.worker.start()
    yield context
    await context.repository.close()
    context.worker.stop()


def served(context: Context) -> list[str]:
    return [one.key for one in context.deployments.all()]


def on_device(context: Context) -> set[str]:
    return set(context.host.executor._members)


def loads(context: Context, outcome: str) -> float:
    return context.metrics.registry.get_sample_value("anytime_model_loads_total", {"outcome": outcome})


def break_graph(folder: Path) -> None:
    (folder / "member_01.onnx").write_bytes(b"no graph")


async def test_a_new_version_takes_the_traffic_and_the_old_one_leaves(models: Path):
    write_tiny(models)
    async with running(models) as context:
        write_tiny(models)
        assert (await context.repository.load("tiny")).key == "tiny/2"
        assert served(context) == ["tiny/2"]
        await context.repository.close()
        assert on_device(context) == {"tiny/2"}
        assert (loads(context, "loaded"), loads(context, "unloaded")) == (1, 1)
        assert context.costs.typical("tiny/2", 2, 1) > 0
        labels = {"model": "tiny/1", "members": "1", "source": "validation"}
        assert context.metrics.registry.get_sample_value("anytime_prefix_accuracy", labels) is None


async def test_a_lease_holds_the_old_version_on_the_device(models: Path):
    write_tiny(models)
    async with running(models) as context:
        old = context.deployments.find("tiny")
        with context.repository.lease(old), context.repository.lease(old):
            write_tiny(models)
            await context.repository.load("tiny")
            await context.repository.close()
            assert served(context) == ["tiny/2"]
            assert on_device(context) == {"tiny/1", "tiny/2"}
        await context.repository.close()
        assert on_device(context) == {"tiny/2"}


@asynccontextmanager
async def replaced(context: Context, models: Path) -> AsyncIterator[tuple[Deployment, Deployment]]:
    """The version that was served, still leased, and the newer one that has taken over."""
    old = context.deployments.find("tiny")
    with context.repository.lease(old):
        write_tiny(models)
        yield old, await context.repository.load("tiny")


async def test_a_retired_version_that_is_still_there_can_come_back(models: Path):
    write_tiny(models)
    async with running(models) as context:
        async with replaced(context, models) as (old, _):
            assert await context.repository.load("tiny", 1) is old
            assert served(context) == ["tiny/1"]
        await context.repository.close()
        assert on_device(context) == {"tiny/1"}


async def test_polling_finds_each_new_version_once(models: Path):
    write_tiny(models)
    async with running(models) as context:
        await context.repository.poll()
        assert loads(context, "loaded") == 0
        write_tiny(models)
        write_tiny(models, name="other")
        await context.repository.poll()
        assert served(context) == ["other/1", "tiny/2"]
        await context.repository.load("tiny", 1)
        context.repository.unload("other")
        await context.repository.poll()
        assert served(context) == ["tiny/1"], "what a person has chosen stays"
        write_tiny(models)
        await context.repository.poll()
        assert served(context) == ["tiny/3"]


@pytest.mark.parametrize(("wanted", "expected"), [("tiny", ["tiny/3"]), ("tiny,tiny/1", ["tiny/1", "tiny/3"])])
async def test_polling_follows_what_the_settings_name_and_leaves_pins_alone(
    models: Path, wanted: str, expected: list[str]
):
    write_tiny(models)
    write_tiny(models)
    async with running(models, models=wanted) as context:
        write_tiny(models)
        write_tiny(models, name="other")
        await context.repository.poll()
        assert served(context) == expected


async def test_going_back_to_a_pinned_version_retires_the_other(models: Path):
    write_tiny(models)
    write_tiny(models)
    async with running(models, models="tiny,tiny/1") as context:
        assert served(context) == ["tiny/1", "tiny/2"]
        await context.repository.load("tiny", 1)
        assert served(context) == ["tiny/1"]
        assert loads(context, "loaded") == 0


async def test_a_pinned_name_is_never_replaced_by_polling(models: Path):
    write_tiny(models)
    async with running(models, models="tiny/1") as context:
        write_tiny(models)
        await context.repository.poll()
        assert served(context) == ["tiny/1"]


async def test_a_bad_bundle_changes_nothing_and_says_why(models: Path, caplog: pytest.LogCaptureFixture):
    write_tiny(models)
    async with running(models) as context:
        break_graph(write_tiny(models).path)
        with caplog.at_level(logging.ERROR):
            await context.repository.poll()
            await context.repository.poll()
        assert served(context) == ["tiny/1"]
        assert on_device(context) == {"tiny/1"}
        (failure,) = context.repository.failures
        assert (failure.name, failure.version) == ("tiny", 2)
        assert failure.detail.startswith("tiny/2/member_01.onnx has SHA-256")
        assert loads(context, "failed") == 1, "it is not tried again until it changes"
        (record,) = caplog.records
        assert record.getMessage().startswith("tiny/2 is not loaded: ")
        (models / "tiny" / "2" / "member_01.onnx").write_bytes(tiny_graph(1))
        await context.repository.poll()
        assert served(context) == ["tiny/2"]
        assert context.repository.failures == []


async def test_a_version_that_was_changed_in_place_is_not_taken_for_what_is_served(models: Path):
    bundle = write_tiny(models)
    async with running(models) as context:
        manifest = bundle.manifest.model_copy(update={"classes": tuple(reversed(bundle.manifest.classes))})
        (bundle.path / "manifest.json").write_bytes(encode_manifest(manifest))
        with pytest.raises(InvalidBundle, match="a version never changes"):
            await context.repository.load("tiny", 1)
        assert served(context) == ["tiny/1"]


async def test_a_graph_that_onnxruntime_refuses_is_a_bad_bundle(models: Path):
    write_tiny(models)
    async with running(models) as context:
        graphs = [b"no graph"]
        write_bundle(models, {"member_00.onnx": graphs[0]}, lambda version: tiny_manifest(graphs, version))
        with pytest.raises(InvalidBundle, match="cannot be opened by onnxruntime"):
            await context.repository.load("tiny")
        assert served(context) == ["tiny/1"]


class Choosy(CpuExecutor):
    """Cannot run the second version."""

    def run(self, step: Step) -> Logits:
        if step.model == "tiny/2" and step.member == 2:
            raise RuntimeError("no kernel\nand a stack")
        return super().run(step)


async def test_a_member_that_fails_its_rehearsal_is_a_bad_bundle(models: Path):
    write_tiny(models)
    async with running(models, Choosy(threads=1)) as context:
        write_tiny(models)
        with pytest.raises(InvalidBundle, match=r"tiny/2 failed when it was tried on zeros: no kernel$"):
            await context.repository.load("tiny")
        await asyncio.wrap_future(context.worker.call(lambda: None))
        assert on_device(context) == {"tiny/1"}


class Copied(CpuExecutor):
    """While the second version is opened for the first time, what is missing in it arrives."""

    missing: Path | None = None

    def load(self, model: str, bundle: Bundle) -> None:
        if model == "tiny/2" and self.missing is None:
            self.missing = bundle.path / "came_later"
            self.missing.touch()
            raise InvalidBundle("something is missing")
        super().load(model, bundle)


async def test_a_bundle_that_was_completed_while_it_was_opened_is_tried_again(models: Path):
    write_tiny(models)
    async with running(models, Copied(threads=1)) as context:
        write_tiny(models)
        await context.repository.poll()
        assert served(context) == ["tiny/1"]
        await context.repository.poll()
        assert served(context) == ["tiny/2"]


async def test_a_link_to_nowhere_keeps_no_other_version_back(models: Path):
    write_tiny(models)
    (write_tiny(models, name="other").path / "notes").symlink_to("nowhere")
    async with running(models) as context:
        bad = write_tiny(models, name="other")
        bad.graph(1).unlink()
        bad.graph(1).symlink_to("nowhere")
        write_tiny(models)
        await context.repository.poll()
        assert served(context) == ["other/1", "tiny/2"]
        (failure,) = context.repository.failures
        assert failure.detail.startswith("other/2/member_01.onnx cannot be read (No such file or directory)")


async def test_a_name_that_cannot_be_listed_keeps_no_other_back():
    with readable_by_all() as models:
        write_tiny(models)
        async with running(models) as context:
            write_tiny(models, name="closed")
            write_tiny(models)
            with unreadable(models / "closed"):
                await context.repository.poll()
                await context.repository.poll()
                assert served(context) == ["tiny/2"]
                assert loads(context, "failed") == 1, "it is said once"
                (failure,) = context.repository.failures
                assert failure.detail.startswith("closed cannot be listed (Permission denied)")
            await context.repository.poll()
            assert served(context) == ["closed/1", "tiny/2"]
            assert context.repository.failures == []


@pytest.mark.parametrize("place", [".", "models"])
async def test_what_is_wrong_is_told_without_the_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    monkeypatch.chdir(tmp_path)
    write_tiny(Path(place), name="supermodels")
    async with running(Path(place)) as context:
        break_graph(write_tiny(Path(place), name="supermodels").path)
        with pytest.raises(InvalidBundle):
            await context.repository.load("supermodels")
        (failure,) = context.repository.failures
        assert failure.detail.startswith("supermodels/2/member_01.onnx has SHA-256")
        assert failure.detail.endswith("copy or train the bundle again.")


async def test_a_dead_device_thread_is_not_the_bundles_fault(models: Path):
    write_tiny(models)
    async with running(models) as context:
        write_tiny(models)
        context.worker.stop()
        for attempts in (1, 2):
            await context.repository.poll()
            assert loads(context, "failed") == attempts, "it is tried again, although it has not changed"
        assert [failure.detail for failure in context.repository.failures] == ["the device thread has ended"]


async def test_what_was_never_there_is_no_failure(models: Path):
    write_tiny(models)
    async with running(models) as context:
        for name, version in (("absent", None), ("tiny", 9), ("..", None)):
            with pytest.raises(BundleNotFound):
                await context.repository.load(name, version)
        assert context.repository.failures == []


async def test_unloading_a_name_names_its_retired_versions_too(models: Path):
    write_tiny(models)
    async with running(models) as context, replaced(context, models) as (old, new):
        assert context.repository.unload("tiny") == [old, new]


async def test_after_the_last_bundle_nothing_is_served(models: Path):
    write_tiny(models)
    async with running(models) as context:
        context.repository.unload("tiny")
        await context.repository.close()
        assert on_device(context) == set()
        for name in (None, "tiny"):
            with pytest.raises(UnknownModel, match="No model is served here at the moment"):
                context.deployments.find(name)
        await context.repository.load("tiny")
        assert served(context) == ["tiny/1"]
