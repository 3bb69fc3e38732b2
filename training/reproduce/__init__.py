"""``train-ensemble reproduce``: the paper's experiments and what goes past them, one small file each."""

from training.reproduce import ablate_gamma, figure2, find_wl, theorem1
from training.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (*figure2.EXPERIMENTS, theorem1.EXPERIMENT, ablate_gamma.EXPERIMENT, find_wl.EXPERIMENT)
}

__all__ = ["EXPERIMENTS", "Experiment"]
