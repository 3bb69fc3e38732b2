"""The picture of Figure 2: accuracy (or RMSE) against cost, for the ensemble and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from bundle import Manifest, Prefix, Teacher
from training import picture
from training.baselines import Point
from training.picture import BLUE, GREY, ORANGE


def write_report(
    path: Path, manifest: Manifest, resched: Sequence[Point], no_resched: Sequence[Point], flops: float
) -> None:
    """Write the picture.

    Args:
        path: the PNG file.
        manifest: of the ensemble; its running averages and its teacher are drawn.
        resched: the baseline's points.
        no_resched: the oracle's points.
        flops: what the points' FLOPs are divided by, the same as for the manifest's fractions.
    """
    figure, (axes,) = picture.panels()
    scale = 1 if manifest.task == "regression" else 100
    ensemble = [(prefix.flops_fraction, _score(prefix)) for prefix in manifest.averaged]
    curves = (
        (
            "single models, one per budget (NO-RESCHED)",
            [(p.flops / flops, p.score) for p in no_resched],
            GREY,
            "s--",
        ),
        ("independent members, averaged (RESCHED)", [(p.flops / flops, p.score) for p in resched], ORANGE, "^:"),
        ("B-DISTIL ensemble, first k members", ensemble, BLUE, "o-"),
    )
    for label, points, colour, style in curves:
        axes.plot(
            [x for x, _ in points], [scale * y for _, y in points], style, color=colour, label=label, lw=1.8, ms=6
        )
    for k, (x, y) in enumerate(ensemble, start=1):
        text = axes.annotate(
            str(k), (x, scale * y), (0, 8), textcoords="offset points", ha="center", color=BLUE, fontsize=9
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])  # legible on the teacher's line
    teacher = scale * _score(manifest.teacher)
    value = f"{teacher:.3g}" if manifest.task == "regression" else f"{teacher:.1f} %"
    axes.axhline(teacher, color="black", lw=1, ls=(0, (6, 3)), label=f"teacher ({value})")
    _describe(axes, manifest)
    picture.save(figure, path)


def _score(measured: Prefix | Teacher) -> float:
    score = measured.accuracy if measured.accuracy is not None else measured.rmse
    return 0.0 if score is None else score  # the manifest has one of them


def _describe(axes: Axes, manifest: Manifest) -> None:
    of = "the teacher's" if manifest.teacher.flops else "the whole ensemble's"
    seed = f", seed {manifest.training.seed}" if manifest.training else ""
    regression = manifest.task == "regression"
    measure, unit = ("root mean squared error", "") if regression else ("accuracy", " (%)")
    picture.plain(
        axes,
        title=f"{manifest.name}: {measure} on {manifest.evaluation.samples} held-out samples{seed}",
        x=f"cost of an answer, as a fraction of {of} FLOPs",
        y=f"{measure}{unit}",
    )
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    axes.legend(loc="upper right" if regression else "lower right", frameon=False, fontsize=9)
