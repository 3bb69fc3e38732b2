"""``train-ensemble reproduce``: the paper's experiments and what goes past them, one small file each."""

from training.reproduce import figure2
from training.reproduce.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in figure2.EXPERIMENTS}

__all__ = ["EXPERIMENTS", "Experiment"]
