"""Families of networks: shapes, taps, what a connection adds, what they cost; published checkpoints as teachers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from training import flops
from training.connections import sources_of
from training.errors import BadConfig, BadTeacher
from training.networks import DenseNet, Normalise, Recurrent, ResNet, StagedNetwork
from training.networks.resnet import load_published

IMAGE, SEQUENCE, LABELS = (3, 16, 16), (9, 5), 4
FAMILIES = [
    (ResNet(widths=(2, 3, 4)), IMAGE),
    (ResNet(widths=(2, 3, 4), blocks=2, downsample="block"), IMAGE),
    (DenseNet(widths=(3, 4), growth=2), IMAGE),
    (Recurrent(cell="lstm", widths=(4, 3)), SEQUENCE),
    (Recurrent(cell="gru", widths=(4,), blocks=2), SEQUENCE),
    (Recurrent(cell="lstm", widths=(4, 3), frame=3), SEQUENCE),
]
families = pytest.mark.parametrize(("family", "shape"), FAMILIES, ids=lambda value: getattr(value, "name", ""))


def build(family, shape: tuple[int, ...], kind: str = "none", sources: int = 0) -> StagedNetwork:
    x = np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)
    torch.manual_seed(0)
    return family.build(Normalise.of(x, sequences=len(shape) == 2), shape, LABELS, kind, sources)


def samples(shape: tuple[int, ...], count: int = 6) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@families
@pytest.mark.parametrize("kind", ["residual", "dense", "lstm", "gru"])
def test_members_read_members_of_their_family(family, shape: tuple[int, ...], kind: str):
    x = samples(shape)
    logits, taps = build(family, shape)(x)
    assert logits.shape == (6, LABELS)
    assert len(taps) == len(family.widths)
    earlier = [[tap.detach().requires_grad_(), tap.detach()] for tap in taps]
    reader = build(family, shape, kind, 2)
    read_logits, read_taps = reader(x, earlier)
    assert [tap.shape for tap in read_taps] == [tap.shape for tap in taps]
    read_logits.square().sum().backward()
    for stage in earlier:
        assert stage[0].grad is not None
        assert stage[0].grad.abs().sum() > 0, "every stage reads its taps"
    assert all(parameter.grad is not None for parameter in reader.parameters())


@families
def test_pitfall_18_a_residual_expansion_is_as_large_as_its_base_class(family, shape: tuple[int, ...]):
    base, expanded = build(family, shape), build(family, shape, "residual", 2)
    assert [p.shape for p in expanded.parameters()] == [p.shape for p in base.parameters()]


@families
def test_scaled_classes_cost_what_their_width_says(family, shape: tuple[int, ...]):
    x = samples(shape, 1)
    base, wide = (flops.count(build(which, shape), x).total for which in (family, family.scaled(3)))
    assert 3 * base < wide < 9 * base
    assert family.scaled(1) == family
    assert family.scaled(3).name != family.name


@pytest.mark.parametrize(("family", "shape"), [case for case in FAMILIES if not case[0].name.startswith("lstm")])
@pytest.mark.parametrize("kind", ["none", "dense"])
def test_flops_equal_torchs_counter_where_that_is_right(family, shape: tuple[int, ...], kind: str):
    """It does not know LSTM: for that see the formula below."""
    x = samples(shape, 1)
    network = build(family, shape, kind, 1).eval()
    _, taps = build(family, shape).eval()(x)
    earlier = [[tap.detach()] for tap in taps] if kind == "dense" else []
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, earlier)
    additions = sum(tap.numel() for tap in taps) if earlier else 0
    assert flops.count(network, x, earlier).total == counter.get_total_flops() + additions


def test_flops_of_recurrent_members_by_hand():
    """A projection, gates that each read input and state, a head that reads the last step."""
    for cell, gates in (("lstm", 4), ("gru", 3)):
        network = build(Recurrent(cell=cell, widths=(32,)), (99, 32))
        expected = 99 * (2 * 32 * 32 + 2 * gates * 32 * (32 + 32)) + 2 * 32 * LABELS
        assert flops.count(network, samples((99, 32), 1)).total == expected


@pytest.mark.parametrize(
    ("family", "reached"),
    # A residual block has two convolutions behind each connection, this dense block one (its 1x1 reaches no further).
    [(ResNet(widths=(3, 3)), [3, 5, 7]), (DenseNet(widths=(3, 3), blocks=1), [2, 3, 4])],
    ids=["resnet", "densenet"],
)
@pytest.mark.parametrize("kind", ["residual", "dense"])
def test_a_connection_adds_depth_to_images(family, reached: list[int], kind: str):
    """How far from the middle a pixel can be and still change the first stage's tap in the middle."""
    x = samples((3, 16, 16), 1).requires_grad_()
    taps: list[list[Tensor]] = []
    for index, expected in enumerate(reached):
        sources = sources_of(kind, 1, index)
        network = build(family, (3, 16, 16), kind, len(sources)).eval()
        for parameter in network.parameters():
            parameter.data.abs_()  # nothing is cut off by a ReLU
        positive = x.abs() + 9
        tap = network(positive, [[taps[source][stage] for source in sources] for stage in range(2)])[1]
        taps.append(tap)
        (gradient,) = torch.autograd.grad(tap[0][0, :, 8, 8].sum(), x, retain_graph=True)
        assert int((torch.nonzero(gradient[0])[:, 1] - 8).abs().max()) == expected


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("kind", ["residual", "dense", "lstm", "gru"])
def test_an_earlier_sequence_enters_before_the_recurrence_and_time_runs_forward(cell: str, kind: str):
    family = Recurrent(cell=cell, widths=(4,))
    network, x = build(family, SEQUENCE, kind, 1), samples(SEQUENCE, 1)
    earlier = torch.zeros(1, 9, 4, requires_grad=True)
    _, (tap,) = network(x, [[earlier]])
    (gradient,) = torch.autograd.grad(tap[0, 5].sum(), earlier)
    steps = gradient[0].abs().sum(dim=1) > 0
    assert steps[:6].all(), "the state at step 5 remembers what the earlier member said at every step up to it"
    assert not steps[6:].any(), "and knows nothing of later ones"


def test_a_frame_is_read_whole_and_before_any_later_step():
    network = build(Recurrent(cell="gru", widths=(4, 2), frame=3), SEQUENCE)
    x = samples(SEQUENCE, 1).requires_grad_()
    _, taps = network(x)
    assert [tap.shape for tap in taps] == [(1, 3, 4), (1, 3, 2)]
    assert (network.frame, network.widths) == (3, (4, 2))
    (gradient,) = torch.autograd.grad(network.logits_of_steps(taps)[0, 1].sum(), x)
    assert (gradient[0].abs().sum(dim=1) > 0).tolist() == [True] * 6 + [False] * 3


def test_wrong_shapes_and_stages_are_one_sentence():
    with pytest.raises(BadConfig, match=r"takes images \(C, H, W\), not samples of shape \[9, 5\]"):
        build(ResNet(), SEQUENCE)
    with pytest.raises(BadConfig, match=r"takes images \(C, H, W\), not samples of shape \[9, 5\]"):
        build(DenseNet(widths=(3,)), SEQUENCE)
    with pytest.raises(BadConfig, match=r"takes sequences \(steps, features\), not samples of \[3, 16, 16\]"):
        build(Recurrent(cell="gru", widths=(3,)), IMAGE)
    with pytest.raises(BadConfig, match="cell='LSTM' is none of: lstm, gru"):
        build(Recurrent(cell="LSTM", widths=(3,)), SEQUENCE)
    with pytest.raises(BadConfig, match="2 steps at once must divide the 9 steps of a sequence"):
        build(Recurrent(cell="gru", widths=(3,), frame=2), SEQUENCE)
    with pytest.raises(BadConfig, match=r"cannot become narrower: \[4, 3\]"):
        build(ResNet(widths=(4, 3)), IMAGE)
    with pytest.raises(BadConfig, match="downsample='pool' only"):
        build(ResNet(downsample="block"), IMAGE, "dense", 1)


# ---------------------------------------------------------------- published checkpoints


class PublishedBlock(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if x.shape != out.shape:
            quarter = out.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return functional.relu(out + x)


class Published(nn.Module):
    """The architecture as its authors write it down, with their names."""

    def __init__(self, depth: int, labels: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(PublishedBlock(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(PublishedBlock(16 if i == 0 else 32, 32, 2 - (i > 0)) for i in range(blocks)))
        self.layer3 = nn.Sequential(*(PublishedBlock(32 if i == 0 else 64, 64, 2 - (i > 0)) for i in range(blocks)))
        self.linear = nn.Linear(64, labels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(out.mean(dim=(2, 3)))


def published(depth: int) -> Published:
    torch.manual_seed(depth)
    network = Published(depth)
    for value in network.state_dict().values():
        if value.dtype == torch.float32 and value.ndim == 1:
            value.add_(torch.rand(value.shape))  # statistics and offsets that would be missed if they were lost
    return network.eval()


def arrays(network: nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    state = network.state_dict().items()
    return {prefix + name: value.numpy() for name, value in state if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module", params=["npz", "several", "state dict", "checkpoint"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Published]:
    network, folder = published(14), tmp_path_factory.mktemp("published")
    if request.param == "npz":
        np.savez(folder / "w.npz", **arrays(network))
    elif request.param == "several":
        np.savez(folder / "w.npz", **arrays(network, "resnet14/"), **arrays(published(8), "resnet8/"))
    elif request.param == "state dict":
        torch.save(network.state_dict(), folder / "w.npz")
    else:
        state = {f"module.{name}": value for name, value in network.state_dict().items()}
        torch.save({"state_dict": state, "best_prec1": 91.7}, folder / "w.npz")
    return folder / "w.npz", network


def test_a_published_checkpoint_answers_as_published(checkpoint: tuple[Path, Published]):
    path, network = checkpoint
    teacher = load_published(path, 14)
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        found = teacher(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_published_sizes():
    """Trainable parameters and multiply-adds of the four published depths."""
    for depth, parameters in {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018}.items():
        network = ResNet(blocks=(depth - 2) // 6, downsample="block").build(
            Normalise(*torch.zeros(2, 3, 1, 1)), (3, 32, 32), 10
        )
        assert flops.parameters(network) == parameters == flops.parameters(Published(depth))
    x = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        Published(56).eval()(x)
    assert flops.count(network, x).total == counter.get_total_flops() == 2 * 125_485_696


def test_a_bad_checkpoint_is_one_sentence(tmp_path: Path):
    path = tmp_path / "w.npz"
    with pytest.raises(BadTeacher, match=r"There is no checkpoint .*w\.npz"):
        load_published(path, 20)
    np.savez(path, **arrays(published(14)))
    with pytest.raises(BadTeacher, match=r"does not hold a CIFAR ResNet-20 of 10 classes: .* does not fit"):
        load_published(path, 20)
    with pytest.raises(BadTeacher, match=r"ResNet-14 of 100 classes: linear\.weight does not fit"):
        load_published(path, 14, labels=100)
    with pytest.raises(BadConfig, match="no CIFAR ResNet of depth 18"):
        load_published(path, 18)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BadTeacher, match="cannot be read as a checkpoint"):
        load_published(path, 14)
