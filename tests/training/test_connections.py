"""Connections: they add depth, keep the parameter count, and say what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training import flops
from training.connections import Dense, GRUGated, LSTMGated, Residual, connect, expansions, sources_of
from training.networks import Convolutional, FullyConnected, Normalise, StagedNetwork

SHAPE, LABELS = (16, 16), 4
CLASS = Convolutional(widths=(2, 3))


def build(kind: str = "none", sources: int = 0, model_class=CLASS, shape: tuple[int, ...] = SHAPE) -> StagedNetwork:
    normalise = Normalise.of(np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32))
    return model_class.build(normalise, shape, LABELS, kind, sources)


def reach(network: StagedNetwork, x: Tensor, earlier: list[list[Tensor]]) -> int:
    """How far from the middle a pixel can be and still change the first stage's tap in the middle."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().mul_(0.1)  # nothing is cut off by a ReLU, and no gate is shut
    tap = network.eval()(x, earlier)[1][0]
    (gradient,) = torch.autograd.grad(tap[0, :, 8, 8].sum(), x, retain_graph=True)
    rows = torch.nonzero(gradient[0])[:, 0]
    return int((rows - 8).abs().max())


@pytest.mark.parametrize("kind", ["residual", "dense", "lstm", "gru"])
def test_a_connection_adds_depth_not_only_width(kind: str):
    """A tap that is added before the block goes through one more convolution with every member."""
    x = (torch.ones(1, *SHAPE) * 5).requires_grad_()
    first = build()
    reached = [reach(first, x, [])]
    taps = [first(x)[1]]
    for index in (1, 2):
        sources = sources_of(kind, 1, index)
        earlier = [[taps[source][stage] for source in sources] for stage in range(2)]
        member = build(kind, len(sources))
        reached.append(reach(member, x, earlier))
        taps.append(member(x, earlier)[1])
    assert reached == [2, 3, 4]


@pytest.mark.parametrize("model_class", [CLASS, FullyConnected(widths=(5, 4))])
@pytest.mark.parametrize("sources", [1, 2])
def test_pitfall_18_a_residual_expansion_is_as_large_as_its_base_class(model_class, sources: int):
    base, expanded = build(model_class=model_class), build("residual", sources, model_class)
    assert flops.parameters(expanded) == flops.parameters(base)
    assert [p.shape for p in expanded.parameters()] == [p.shape for p in base.parameters()]


def test_residual_adds_and_dense_projects():
    own, taps = torch.ones(2, 3, 4, 4), [torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 3.0)]
    assert torch.equal(Residual(2)(own, taps), torch.full_like(own, 6.0))
    dense = Dense(2, 3, spatial=True)
    assert dense(own, taps).shape == own.shape
    assert flops.parameters(dense) == 2 * 3 * 3


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize(("gated", "cell"), [(LSTMGated, torch.nn.LSTMCell), (GRUGated, torch.nn.GRUCell)])
def test_gates_are_torchs_cell_stepping_from_member_to_member(gated, cell, spatial: bool):
    width, shape = 3, (2, 3, 4, 4) if spatial else (2, 5, 3)
    oldest, newer, own = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    connection, reference = gated(2, width, spatial=spatial), cell(width, width)
    reference.load_state_dict(
        {
            f"{kind}_{side}": value.flatten(1) if kind == "weight" else value
            for side, layer in (("ih", connection._input), ("hh", connection._state))
            for kind, value in layer.named_parameters()
        }
    )
    oldest_flat, *inputs = [tap.movedim(1 if spatial else -1, -1).reshape(-1, width) for tap in (oldest, newer, own)]
    state = (torch.tanh(oldest_flat), oldest_flat) if cell is torch.nn.LSTMCell else oldest_flat
    for entry in inputs:
        state = reference(entry, state)
    hidden = state[0] if cell is torch.nn.LSTMCell else state
    expected = hidden.reshape(2, 4, 4, 3).movedim(-1, 1) if spatial else hidden.reshape(shape)
    torch.testing.assert_close(connection(own, [oldest, newer]), expected)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_pitfall_18_gates_do_not_grow_with_what_is_read(kind: str):
    one, three = build(kind, 1), build(kind, 3)
    assert [p.shape for p in one.parameters()] == [p.shape for p in three.parameters()]
    gates = {"lstm": 4, "gru": 3}[kind]
    assert flops.parameters(one) - flops.parameters(build()) == sum(2 * gates * w * (w + 1) for w in (2, 3))


def test_who_is_read():
    assert sources_of("none", 1, 4) == ()
    assert sources_of("residual", 0, 4) == ()
    assert sources_of("residual", 1, 4) == (3,)
    assert sources_of("residual", 2, 4) == (2, 3)
    assert sources_of("residual", 2, 1) == (0,)
    assert sources_of("dense", 1, 4) == (0, 1, 2, 3)
    for gated in ("lstm", "gru"):
        assert [sources_of(gated, r, 4) for r in range(3)] == [(), (3,), (2, 3)]
    assert connect("residual", 0, 3, spatial=True) is None
    assert connect("none", 2, 3, spatial=True) is None


def test_expansions_are_searched_in_order_and_none_twice():
    assert expansions("residual", 0, 3, 4) == [(0, ()), (1, (3,)), (2, (2, 3))]
    assert expansions("residual", 0, 3, 1) == [(0, ()), (1, (0,))]
    assert expansions("dense", 0, 3, 2) == [(0, ()), (1, (0, 1))]
    assert expansions("dense", 1, 2, 0) == [(0, ())], "the first member has nobody to read"
    assert expansions("none", 0, 2, 3) == [(0, ())]


def test_flops_of_a_convolutional_network_equal_torchs_counter():
    network, x = build(), torch.zeros(1, *SHAPE)
    with FlopCounterMode(display=False) as counter:
        network.eval()(x)
    counted = flops.count(network, x)
    assert counted.total == counter.get_total_flops()
    assert counted.connections == 0


def test_flops_of_a_fully_connected_network_equal_torchs_counter():
    network, x = build(model_class=FullyConnected(widths=(7, 5), blocks=2), shape=(11,)), torch.zeros(1, 11)
    with FlopCounterMode(display=False) as counter:
        network.eval()(x)
    assert flops.count(network, x).total == counter.get_total_flops()


def test_flops_of_connections_are_counted_apart():
    x = torch.zeros(1, *SHAPE)
    base = flops.count(build(), x).total
    elements = 2 * 16 * 16 + 3 * 8 * 8
    taps = [[torch.zeros(1, 2, 16, 16)] * 2, [torch.zeros(1, 3, 8, 8)] * 2]
    residual = flops.count(build("residual", 2), x, taps)
    assert (residual.total - base, residual.connections) == (2 * elements, 2 * elements)
    for kind, gates, operations in (("lstm", 4, 8), ("gru", 3, 7)):
        gated = flops.count(build(kind, 2), x, taps)
        products = sum(2 * 2 * gates * w * w * size for w, size in ((2, 256), (3, 64)))  # input and state, 2 each
        assert (gated.total - base, gated.connections) == (2 * products + 2 * operations * elements,) * 2
    dense = flops.count(build("dense", 2), x, taps)
    projections = 2 * (2 * 2) * 2 * 16 * 16 + 2 * (2 * 3) * 3 * 8 * 8
    assert (dense.total - base, dense.connections) == (projections + elements, projections + elements)


def test_flops_of_recurrent_layers_that_common_counters_miss():
    """Anchors: 32 features, 32 hidden units, 99 steps."""
    x = torch.zeros(1, 99, 32)
    head = 2 * 32 * 13 * 99
    assert flops.count(torch.nn.LSTM(32, 32, batch_first=True), x).total + head == 1_704_384
    assert flops.count(torch.nn.GRU(32, 32, batch_first=True), x).total + head == 1_298_880
    twice = flops.count(torch.nn.GRU(32, 32, num_layers=2, bidirectional=True, batch_first=True), x).total
    assert twice == 2 * 99 * 2 * 3 * 32 * ((32 + 32) + (64 + 32))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_flops_of_an_lstm_that_projects_its_state():
    lstm, x = torch.nn.LSTM(32, 24, num_layers=2, proj_size=8, batch_first=True), torch.zeros(1, 9, 32)
    expected = 9 * (2 * 4 * 24 * (32 + 8) + 2 * 4 * 24 * (8 + 8) + 2 * 2 * 24 * 8)
    assert flops.count(lstm, x).total == flops.count_unknown(lstm, x) == expected


def test_flops_of_a_grouped_convolution():
    layer, x = torch.nn.Conv2d(4, 8, 3, groups=2, padding=1), torch.zeros(1, 4, 5, 5)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert flops.count(layer, x).total == counter.get_total_flops() == 2 * 9 * 2 * 8 * 25


def test_flops_of_somebody_elses_network_are_those_of_the_counter_that_sees_more():
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(1, 5, 8)
    assert flops.count_unknown(attention, x, x, x) >= 2 * 5 * 8 * (3 * 8 + 8)
    lstm = torch.nn.LSTM(32, 32, batch_first=True)
    assert flops.count_unknown(lstm, torch.zeros(1, 9, 32)) == flops.count(lstm, torch.zeros(1, 9, 32)).total
    network = build()
    assert flops.count_unknown(network, torch.zeros(1, *SHAPE)) == flops.count(network, torch.zeros(1, *SHAPE)).total


class Mixed(torch.nn.Module):
    """Of which neither the formulas nor torch's counter know all."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(32, 32, batch_first=True)
        self.encoder = torch.nn.TransformerEncoderLayer(32, 4, 128, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.lstm(input=x)[0])


def test_flops_of_recurrence_beside_attention_are_those_of_both():
    network, x = Mixed(), torch.zeros(1, 99, 32)
    recurrence = flops.count(network.lstm, x).total
    layers = 99 * 2 * (4 * 32 * 32 + 2 * 32 * 128)
    products = 2 * 2 * 99 * 99 * 32
    assert flops.count_unknown(network, x) == recurrence + layers + products


def test_finished_logits_are_centred_and_nothing_else_changes():
    network, x = build().eval(), torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(0))
    before = network(x)[0].detach()
    after = network.finish()(x)[0]
    torch.testing.assert_close(after, before - before.mean(dim=1, keepdim=True))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_raw_inputs_are_normalised_inside():
    x = np.random.default_rng(0).integers(0, 17, size=(50, 3, 8, 8)).astype(np.uint8)
    normalised = Normalise.of(x)(torch.from_numpy(x))
    torch.testing.assert_close(normalised.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    small = Normalise.of(x * np.float32(1e-9))(torch.from_numpy(x * np.float32(1e-9)))
    torch.testing.assert_close(small, normalised, rtol=1e-5, atol=1e-5)
    constant = Normalise.of(np.full((5, 4), 3.0, np.float32))(torch.full((2, 4), 3.0))
    assert torch.equal(constant, torch.zeros(2, 4))
