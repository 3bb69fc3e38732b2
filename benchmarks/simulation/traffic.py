"""Arrivals, by their shape in time; the mean rate is the caller's.

- `poisson`: independent arrivals.
- `bursty`: a Markov-modulated Poisson process; a fifth of the time the rate is three times the mean, bursts of 0.4 s
  on average, and half the mean between them.
- `day`: the shape of a public web service's day, squeezed into a minute: two humps, noise that lasts, flash crowds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

TICK_S = 0.01
DAY_S = 60.0
SHAPES = ("poisson", "bursty", "day")


def arrivals(shape: str, rate: float, requests: int, random: np.random.Generator) -> Floats:
    """About `requests` instants, ascending, at `rate` per second on average."""
    ticks = int(np.ceil(requests / rate / TICK_S))
    intensity = {"poisson": _flat, "bursty": _bursty, "day": _day}[shape](ticks, random)
    counts = random.poisson(rate * TICK_S * intensity)
    instants = np.repeat(np.arange(ticks), counts) + random.random(counts.sum())
    return np.sort(instants) * TICK_S


def _flat(ticks: int, _: np.random.Generator) -> Floats:
    return np.ones(ticks)


def _bursty(ticks: int, random: np.random.Generator) -> Floats:
    intensity, at = np.empty(ticks), 0
    burst = False
    while at < ticks:
        stay = 1 + random.geometric(TICK_S / (0.4 if burst else 1.6))
        intensity[at : at + stay] = 3.0 if burst else 0.5
        at, burst = at + stay, not burst
    return intensity


def _day(ticks: int, random: np.random.Generator) -> Floats:
    hour = np.arange(ticks) * TICK_S / DAY_S * 2 * np.pi
    humps = 1 - 0.5 * np.cos(hour) - 0.2 * np.cos(2 * hour + 0.6)
    noise = np.zeros(ticks)
    # Autoregressive in steps of half a second: what is busy stays busy for a while.
    steps = np.arange(ticks) // 50
    level = np.zeros(steps[-1] + 1)
    for step in range(1, len(level)):
        level[step] = 0.8 * level[step - 1] + random.normal(0, 0.18)
    noise = np.exp(level[steps])
    crowd = np.ones(ticks)
    for start in random.integers(0, ticks, max(1, int(ticks * TICK_S / 20))):
        length = int(1.0 / TICK_S)
        crowd[start : start + length] = 1 + 3 * np.exp(-np.arange(len(crowd[start : start + length])) / 40)
    intensity = humps * noise * crowd
    result: Floats = intensity / intensity.mean()
    return result
