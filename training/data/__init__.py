"""Data sets as arrays: one file each, nothing of models."""

from training.data.arrays import Data, Split

__all__ = ["Data", "Split"]
