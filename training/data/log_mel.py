"""Log-mel energies of one-second clips, as EMI-RNN computes them (python_speech_features' fbank, Hamming window)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
SAMPLES = RATE_HZ
"""Of a clip: one second."""
FRAME, STEP = 400, 160
"""25 ms every 10 ms."""
FRAMES = 1 + -(-(SAMPLES - FRAME) // STEP)
"""The last frame reaches past the clip, into zeros."""
TRANSFORM = 512
FILTERS = 32
PRE_EMPHASIS = 0.97
FLOOR = 1e-10
"""Added before the logarithm."""


def log_mel(clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Clips (N, 16000), on the scale of int16, to features (N, 99, 32)."""
    signal = clips.astype(np.float64)
    signal[:, 1:] -= PRE_EMPHASIS * signal[:, :-1]
    padded = np.pad(signal, ((0, 0), (0, (FRAMES - 1) * STEP + FRAME - SAMPLES)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME, axis=1)[:, ::STEP]
    spectrum = np.fft.rfft(frames * np.hamming(FRAME), TRANSFORM)
    power = (spectrum.real**2 + spectrum.imag**2) / TRANSFORM
    energy = power @ filterbank().T
    energy[energy == 0] = np.finfo(np.float64).eps
    return np.log(energy + FLOOR).astype(np.float32)


def filterbank() -> npt.NDArray[np.float64]:
    """Triangles (32, 257) over the bins of the transform, their corners evenly spaced in mel from 0 to 8 kHz."""
    highest = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, FILTERS + 2) / 2595) - 1)
    corners = np.floor((TRANSFORM + 1) * hertz / RATE_HZ)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = np.arange(TRANSFORM // 2 + 1)
    # Filters at the bottom are so narrow that two corners can share a bin: such a flank has no bins at all.
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    return np.where((left <= bins) & (bins < centre), rising, 0) + np.where(
        (centre <= bins) & (bins < right), falling, 0
    )
