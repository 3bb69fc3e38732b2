"""Several members as one ONNX graph: what a session needs that runs them in one go."""

from __future__ import annotations

import onnx
from onnx import compose, helper

from bundle import Bundle, Member

Key = tuple[int, str]
"""Member and output."""


class NotFusible(Exception):
    """Members that do not go into one graph; the message says why."""


def value(key: Key) -> str:
    """The name in a fused graph of what a member gives, whether it is computed there or read."""
    member, output = key
    return f"{_prefix(member)}{output}"


def read_before(bundle: Bundle, members: range) -> list[Key]:
    """What these members read of those before them."""
    links = (link for index in members for link in bundle.manifest.members[index].connections)
    return sorted({(link.from_member, link.from_output) for link in links if link.from_member < members.start})


def read_after(bundle: Bundle, members: range) -> list[Key]:
    """What members after these read of them."""
    links = (link for member in bundle.manifest.members[members.stop :] for link in member.connections)
    return sorted({(link.from_member, link.from_output) for link in links if link.from_member in members})


def fuse(bundle: Bundle, members: range) -> onnx.ModelProto:
    """One graph of members that follow each other.

    It reads the bundle's input under its own name if one of them does, and what `read_before` lists; it gives the
    logits of each, and what `read_after` lists. All but the input are named by `value`.

    Raises:
        NotFusible: the graphs are of different operator sets, have functions of their own, or are no valid graph
            together.
    """
    models = [onnx.load(bundle.graph(index)) for index in members]
    opsets = {tuple(sorted((opset.domain, opset.version) for opset in model.opset_import)) for model in models}
    if len(opsets) > 1:
        raise NotFusible("their graphs are of different operator sets")
    if any(model.functions for model in models):
        raise NotFusible("one of their graphs has functions of its own")
    graphs = [
        _renamed(model.graph, bundle.manifest.members[index], bundle.manifest.input.name)
        for index, model in zip(members, models, strict=True)
    ]
    inside = {value((index, output.name)) for index in members for output in bundle.manifest.members[index].outputs}
    given = [(index, bundle.manifest.members[index].logits) for index in members]
    wanted = {value(key) for key in (*given, *read_after(bundle, members))}
    inputs = {edge.name: edge for graph in graphs for edge in graph.input if edge.name not in inside}
    fused = helper.make_graph(
        [node for graph in graphs for node in graph.node],
        f"members_{members.start}_to_{members.stop - 1}",
        list(inputs.values()),
        [edge for graph in graphs for edge in graph.output if edge.name in wanted],
        [tensor for graph in graphs for tensor in graph.initializer],
    )
    together = helper.make_model(
        fused, opset_imports=models[0].opset_import, ir_version=max(model.ir_version for model in models)
    )
    try:
        onnx.checker.check_model(together)
    except onnx.checker.ValidationError as error:
        raise NotFusible(f"they are no valid graph together: {error}") from error
    return together


def _renamed(graph: onnx.GraphProto, member: Member, own_input: str) -> onnx.GraphProto:
    """The graph with every name its own, but for what it reads: that has the name under which it is given."""
    prefix = _prefix(member.index)
    names = {link.input: value((link.from_member, link.from_output)) for link in member.connections}
    # Subgraphs are renamed first, and read the weights of the graph around them.
    names |= {tensor.name: prefix + tensor.name for tensor in graph.initializer}
    names[own_input] = own_input
    return compose.add_prefix_graph(graph, prefix, rename_inputs=False, name_map=names)


def _prefix(member: int) -> str:
    return f"member_{member}/"
