"""The picture of Figure 2: accuracy (or RMSE) against cost, for the ensemble and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bundle import Manifest, Prefix, Teacher
from training.baselines import Point

BLUE, ORANGE, GREY = "#1f5fa8", "#d9722b", "#6b7280"


def write_report(
    path: Path, manifest: Manifest, resched: Sequence[Point], no_resched: Sequence[Point], flops: float
) -> None:
    """Write the picture.

    Args:
        path: the PNG file.
        manifest: of the ensemble; its prefixes and teacher are drawn.
        resched: the baseline's points.
        no_resched: the oracle's points.
        flops: what the points' FLOPs are divided by, the same as for the manifest's fractions.
    """
    figure = Figure(figsize=(7.2, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    scale = 1 if manifest.task == "regression" else 100
    ensemble = [(prefix.flops_fraction, _score(prefix)) for prefix in manifest.prefixes]
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
    _describe(figure, manifest)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})  # the version of matplotlib would change the bytes


def _score(measured: Prefix | Teacher) -> float:
    score = measured.accuracy if measured.accuracy is not None else measured.rmse
    return 0.0 if score is None else score  # the manifest has one of them


def _describe(figure: Figure, manifest: Manifest) -> None:
    (axes,) = figure.axes
    of = "the teacher's" if manifest.teacher.flops else "the whole ensemble's"
    seed = f", seed {manifest.training.seed}" if manifest.training else ""
    regression = manifest.task == "regression"
    measure, unit = ("root mean squared error", "") if regression else ("accuracy", " (%)")
    samples = manifest.evaluation.samples
    axes.set_title(f"{manifest.name}: {measure} on {samples} held-out samples{seed}", fontsize=11, loc="left")
    axes.set_xlabel(f"cost of an answer, as a fraction of {of} FLOPs")
    axes.set_ylabel(f"{measure}{unit}")
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right" if regression else "lower right", frameon=False, fontsize=9)
