"""The door for one's own teacher and data, end to end."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bundle import open_bundle
from bundle.reference import running_average
from tests.training.toy import CONFIG, toy_data
from training import Config, FullyConnected, Logits, Recurrent, Split, distil
from training.errors import BadCheckpoint, BadConfig, BadTeacher
from training.fingerprint import teacher_sha256

CLASSES = [FullyConnected(widths=(5, 4))]
SMALL = dataclasses.replace(CONFIG, rounds=2, connection="dense")


@pytest.fixture(autouse=True)
def epoch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_logits_give_a_bundle_and_the_same_bits_twice(tmp_path: Path):
    data, logits = toy_data()
    folders = [distil(logits, data, CLASSES, SMALL, models=tmp_path / name) for name in ("one", "two")]
    assert content(folders[0]) == content(folders[1])
    assert folders[0] == tmp_path / "one" / "toy" / "1"
    assert not (tmp_path / "one" / "toy" / ".checkpoint").exists()
    manifest = open_bundle(tmp_path / "one", "toy").manifest
    assert (manifest.teacher.name, manifest.teacher.flops) == ("logits", None)
    assert manifest.prefixes[-1].flops_fraction == pytest.approx(1), "of the whole ensemble"
    assert manifest.training is not None
    assert manifest.training.data_sha256 == data.sha256()
    assert manifest.training.config["classes"] == ["fc-5-4"]
    assert manifest.created.timestamp() == 1700000000


def test_another_seed_gives_another_ensemble(tmp_path: Path):
    data, logits = toy_data()
    settings = dataclasses.replace(SMALL, rounds=1)
    one = distil(logits, data, CLASSES, settings, models=tmp_path)
    two = distil(logits, data, CLASSES, dataclasses.replace(settings, seed=1), models=tmp_path)
    assert (one.name, two.name) == ("1", "2"), "the next version"
    assert content(one)["member_00.onnx"] != content(two)["member_00.onnx"]


class Teacher(nn.Module):
    """Has dropout and batch statistics to be caught with, of which the caller may have frozen some."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.layer, self.dropout = nn.Linear(6, outputs), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.layer(self.frozen(self.norm(x))) * 4)


def test_a_module_is_a_teacher_in_eval_mode_and_comes_back_as_it_was(tmp_path: Path):
    data, _ = toy_data()
    torch.manual_seed(0)
    teacher = Teacher().train()
    teacher.frozen.eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    path = distil(teacher, data, CLASSES, SMALL, models=tmp_path)
    assert [module.training for module in (teacher, teacher.norm, teacher.frozen)] == [True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    bundle = open_bundle(tmp_path, "toy")
    assert bundle.path == path
    described = bundle.manifest.teacher
    with torch.no_grad():
        logits_NL = teacher.eval()(torch.from_numpy(data.test.x)).numpy()
    assert described.accuracy == pytest.approx(np.mean(logits_NL.argmax(1) == data.test.y))
    assert (described.name, described.flops, described.parameters) == ("Teacher", 2 * 6 * 3, 45)
    for prefix, answer in zip(bundle.manifest.prefixes, running_average(bundle, data.test.x), strict=True):
        assert prefix.accuracy == pytest.approx(np.mean(answer.argmax(1) == data.test.y))
        assert prefix.agreement == pytest.approx(np.mean(answer.argmax(1) == logits_NL.argmax(1)))


def test_the_teacher_is_a_last_stage_that_replaces_the_answer(tmp_path: Path):
    data, _ = toy_data()
    torch.manual_seed(0)
    teacher = Teacher().train()
    distil(teacher, data, CLASSES, dataclasses.replace(SMALL, with_teacher=True), models=tmp_path)
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    bundle = open_bundle(tmp_path, "toy")
    *members, last = bundle.manifest.members
    assert [member.combine for member in members] == ["mean", "mean"]
    assert (last.combine, last.connections, last.round) == ("replace", (), None)
    assert (last.flops, last.parameters) == (2 * 6 * 3, 45)
    with torch.no_grad():
        logits_NL = teacher.eval()(torch.from_numpy(data.test.x)).numpy()
    *_, answer = running_average(bundle, data.test.x)
    np.testing.assert_allclose(answer, logits_NL, atol=1e-5)
    whole = bundle.manifest.prefixes[-1]
    assert (whole.agreement, whole.accuracy) == (1, pytest.approx(bundle.manifest.teacher.accuracy))
    costs = [member.flops for member in bundle.manifest.members]
    assert whole.flops_fraction == pytest.approx(sum(costs) / last.flops), "a request that gets there ran all of them"


def test_a_teacher_known_by_its_logits_cannot_be_a_stage(tmp_path: Path):
    data, logits = toy_data()
    with pytest.raises(BadTeacher, match="with_teacher needs the teacher itself, but only its logits were given"):
        distil(logits, data, CLASSES, dataclasses.replace(SMALL, with_teacher=True), models=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


class Untraceable(Teacher):
    """What it does depends on values that only a run knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits_NL = super().forward(x)
        return 2 * logits_NL if float(x.sum()) > 0 else logits_NL


def test_a_teacher_that_cannot_be_exported_is_one_sentence_before_any_round(tmp_path: Path):
    data, _ = toy_data()
    with pytest.raises(BadTeacher, match="The teacher cannot be a stage of the bundle") as caught:
        never = [NeverBuilt(widths=(5, 4))]
        distil(Untraceable(), data, never, dataclasses.replace(SMALL, with_teacher=True), models=tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class NeverBuilt(FullyConnected):
    def build(self, *arguments):
        raise AssertionError("a round was begun")


def with_logits(**changes) -> Logits:
    return dataclasses.replace(toy_data()[1], **changes)


class Answering(nn.Module):
    """Whatever a function says."""

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(x)


def refuse(_x: torch.Tensor) -> torch.Tensor:
    raise AssertionError


def test_a_teacher_whose_name_is_no_word_is_called_by_its_type(tmp_path: Path):
    teacher = Teacher()
    teacher.name = 5
    distil(teacher, toy_data()[0], CLASSES, dataclasses.replace(SMALL, rounds=1), models=tmp_path)
    assert open_bundle(tmp_path, "toy").manifest.teacher.name == "Teacher"


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (Teacher(outputs=5), "The teacher has 5 classes, but the data has 3."),
        (nn.Linear(7, 3), "The teacher cannot take samples of float32[6]"),
        (nn.Flatten(0), "The teacher's train logits have shape (900,), but must be (150, 3)."),
        (nn.LSTM(6, 3), "The teacher returns tuple, but must return one tensor of logits."),
        (Answering(lambda x: x.logits), "The teacher cannot take samples of float32[6]: 'Tensor' object has no"),
        (Answering(refuse), "The teacher cannot take samples of float32[6]: AssertionError."),
        (Answering(torch.sum), "The teacher returns logits of shapes () and (), but must return (N, L) for N samples."),
        (with_logits(train=np.zeros((150, 4))), "The teacher has 4 classes, but the data has 3."),
        (with_logits(test=np.zeros((69, 3))), "The teacher's test logits have shape (69, 3), but must be (70, 3)."),
        (with_logits(train=np.full((150, 3), np.nan)), "The teacher's train logits hold NaN or infinity."),
        (with_logits(train=np.zeros((150, 3), int)), "The teacher's train logits must be an array of floats."),
        (with_logits(validation=None), "The teacher's validation logits must be an array of floats."),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_sentence(tmp_path: Path, teacher: nn.Module | Logits, sentence: str):
    with pytest.raises(BadTeacher) as caught:
        distil(teacher, toy_data()[0], CLASSES, SMALL, models=tmp_path)
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_classes_and_device_are_checked(tmp_path: Path):
    data, logits = toy_data()
    with pytest.raises(BadConfig, match="classes is empty"):
        distil(logits, data, [], SMALL, models=tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(BadConfig, match="torch sees no CUDA device"):
            distil(logits, data, CLASSES, dataclasses.replace(SMALL, device="cuda"), models=tmp_path)


def test_classes_whose_members_could_not_read_each_other_are_refused_before_any_round(tmp_path: Path):
    data, logits = toy_data()
    classes = [FullyConnected(widths=(5, 4)), FullyConnected(widths=(5, 8))]
    sentence = r"stages of fc-5-4 give \[\[5\], \[4\]\] and those of fc-5-8 \[\[5\], \[8\]\], so members cannot be"
    with pytest.raises(BadConfig, match=sentence):
        distil(logits, data, classes, SMALL, models=tmp_path)
    settings = dataclasses.replace(SMALL, rounds=1, epochs=1, connection="none", first_expansion=0)
    assert distil(logits, data, classes, settings, models=tmp_path).name == "1", "nobody reads anybody"


def test_recurrent_members_need_data_that_says_that_it_is_sequences(tmp_path: Path):
    data, logits = toy_data()
    as_steps = {name: Split(split.x.reshape(-1, 3, 2), split.y) for name, split in data.splits().items()}
    data = dataclasses.replace(data, **as_steps)
    classes = [Recurrent(cell="gru", widths=(3,))]
    with pytest.raises(BadConfig, match=r"gru-3 reads samples as sequences, .*: make it with sequences=True"):
        distil(logits, data, classes, dataclasses.replace(SMALL, rounds=1), models=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_resuming_nothing_or_another_run_is_refused(tmp_path: Path):
    data, logits = toy_data()
    with pytest.raises(BadCheckpoint, match="There is nothing to resume"):
        distil(logits, data, CLASSES, SMALL, models=tmp_path, resume=True)
    settings = dataclasses.replace(SMALL, epochs=1)
    interrupt(logits, settings, tmp_path)
    assert (tmp_path / "toy" / ".checkpoint").is_dir()
    with pytest.raises(BadCheckpoint, match="of a run with other settings"):
        distil(logits, data, CLASSES, dataclasses.replace(settings, gamma=3.0), models=tmp_path, resume=True)
    classes = [Interrupting(widths=(5, 4), armed=False)]
    assert distil(logits, data, classes, settings, models=tmp_path, resume=True).name == "1"


def seeded_teacher(seed: int) -> Teacher:
    torch.manual_seed(seed)
    return Teacher()


OTHER_TEACHERS = [
    (toy_data()[1], dataclasses.replace(toy_data()[1], test=toy_data()[1].test * 2)),
    (seeded_teacher(0), seeded_teacher(1)),
    (seeded_teacher(0), nn.Sequential(seeded_teacher(0))),
]


@pytest.mark.parametrize(("teacher", "other"), OTHER_TEACHERS, ids=["logits", "weights", "type"])
def test_another_teacher_or_other_classes_do_not_go_on_with_a_run(tmp_path: Path, teacher, other):
    data, settings = toy_data()[0], dataclasses.replace(SMALL, epochs=1)
    classes = [Interrupting(widths=(5, 4), armed=False)]
    interrupt(teacher, settings, tmp_path)
    with pytest.raises(BadCheckpoint, match="other settings, seed, data, model classes or teacher"):
        distil(other, data, classes, settings, models=tmp_path, resume=True)
    with pytest.raises(BadCheckpoint, match="other settings, seed, data, model classes or teacher"):
        distil(teacher, data, CLASSES, settings, models=tmp_path, resume=True)
    distil(copy.deepcopy(teacher), data, classes, settings, models=tmp_path, resume=True)
    training = open_bundle(tmp_path, "toy").manifest.training
    assert training is not None
    assert training.teacher_sha256 == teacher_sha256(teacher) != teacher_sha256(other)


def interrupt(teacher: nn.Module | Logits, settings: Config, models: Path) -> None:
    """Leave the checkpoint of a run that found its first member."""
    with pytest.raises(KeyboardInterrupt):
        distil(teacher, toy_data()[0], [Interrupting(widths=(5, 4))], settings, models=models)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interrupting(FullyConnected):
    """Ctrl-C when the second member is built."""

    armed: bool = dataclasses.field(default=True, repr=False)  # so that a run is known by the same words either way

    def build(self, *arguments):
        if self.armed and arguments[-1]:
            raise KeyboardInterrupt
        return super().build(*arguments)


def test_the_callers_torch_settings_are_left_alone(tmp_path: Path):
    data, logits = toy_data()
    torch.manual_seed(5)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    distil(logits, data, CLASSES, dataclasses.replace(SMALL, rounds=1), models=tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_default_config_needs_only_a_name():
    assert Config(name="mine").rounds == 7
