"""``train-ensemble reproduce``: the paper's experiments and what goes past them, one small file each."""

from training.reproduce import (
    ablate_connections,
    ablate_gamma,
    ablate_refinement,
    compare_ensembles,
    figure2,
    figure3,
    find_wl,
    table1,
    theorem1,
)
from training.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        *figure2.EXPERIMENTS,
        figure3.EXPERIMENT,
        table1.EXPERIMENT,
        theorem1.EXPERIMENT,
        ablate_connections.EXPERIMENT,
        ablate_gamma.EXPERIMENT,
        ablate_refinement.EXPERIMENT,
        find_wl.EXPERIMENT,
        compare_ensembles.EXPERIMENT,
    )
}

__all__ = ["EXPERIMENTS", "Experiment"]
