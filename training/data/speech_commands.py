"""Google-13: twelve words of Speech Commands v0.01 (Warden, 2017) and one class for the other eighteen."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.archive import Archive, entries
from training.data.arrays import Data, Split
from training.data.log_mel import FILTERS, FRAMES, RATE_HZ, SAMPLES, log_mel
from training.errors import BadData

ARCHIVE = Archive(
    "speech_commands_v0.01.tar.gz",
    "http://download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
    "sha256:743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
)
KEYWORDS = ("go", "no", "on", "up", "bed", "cat", "dog", "off", "one", "six", "two", "yes")
"""Labels 1 to 12, as EMI-RNN numbers them."""
OTHER_WORDS = (
    *("bird", "down", "eight", "five", "four", "happy", "house", "left", "marvin"),
    *("nine", "right", "seven", "sheila", "stop", "three", "tree", "wow", "zero"),
)
"""Label 0."""
CLASSES = ("other", *KEYWORDS)
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
"""Official: no speaker is in two parts. What neither names is for training."""
CLIPS_AT_ONCE = 64


def load(path: Path) -> Data:
    """Log-mel windows (N, 99, 32) float32 of the archive at `path`; the background noises are not used.

    Raises:
        BadData: the archive is damaged, lacks a list or a listed clip, or holds an unknown word or another sound.
    """
    names, x, lists = _read(path)
    parts = {part: set(listed) for part, listed in lists.items()}
    both = sorted(parts["validation"] & parts["test"])
    if both:
        raise BadData(f"{path}: {both[0]} is on both lists, validation and testing.")
    absent = sorted((parts["validation"] | parts["test"]) - set(names))
    if absent:
        raise BadData(f"{path} lacks {len(absent)} clips that its lists name, such as {absent[0]}.")
    y = np.array([label_of(path, name) for name in names], dtype=np.int64)
    masks = {part: np.array([name in listed for name in names]) for part, listed in parts.items()}
    masks["train"] = ~(masks["validation"] | masks["test"])
    train, validation, test = (Split(x[masks[part]], y[masks[part]]) for part in ("train", "validation", "test"))
    return Data(train=train, validation=validation, test=test, classes=CLASSES, sequences=True)


def label_of(path: Path, name: str) -> int:
    """The label of a clip ``word/speaker_nohash_n.wav``."""
    word = name.partition("/")[0]
    if word not in KEYWORDS and word not in OTHER_WORDS:
        raise BadData(f"{path}: {name} is of a word that version 0.01 does not have.")
    return CLASSES.index(word) if word in KEYWORDS else 0


def _read(path: Path) -> tuple[list[str], npt.NDArray[np.float32], dict[str, list[str]]]:
    """Clip names in ascending order, their features, and the two lists, in one pass over the archive."""
    lists: dict[str, list[str]] = {}
    names: list[str] = []
    waiting: list[npt.NDArray[np.int16]] = []
    done = [np.empty((0, FRAMES, FILTERS), np.float32)]
    for name, content in entries(path, _is_wanted):
        part = next((part for part, file in LISTS.items() if file == name), None)
        if part is not None:
            lists[part] = content.decode().split()
            continue
        names.append(name)
        waiting.append(_clip(path, name, content))
        if len(waiting) == CLIPS_AT_ONCE:  # features are a fifth of the sound, and all of the sound is 2 GB
            done.append(log_mel(np.stack(waiting)))
            waiting.clear()
    missing = [file for part, file in LISTS.items() if part not in lists]
    if missing or not names:
        raise BadData(f"{path} lacks {' and '.join(missing) or 'any clips'}: is it {ARCHIVE.file}?")
    if waiting:
        done.append(log_mel(np.stack(waiting)))
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[position] for position in order], np.concatenate(done)[order], lists


def _is_wanted(name: str) -> bool:
    return name in LISTS.values() or (name.endswith(".wav") and not name.startswith("_background_noise_/"))


def _clip(path: Path, name: str, content: bytes) -> npt.NDArray[np.int16]:
    """The sound (16000,), zeros before it where it is shorter than a second."""
    try:
        with wave.open(io.BytesIO(content)) as sound:
            form = (sound.getframerate(), sound.getsampwidth(), sound.getnchannels())
            frames = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise BadData(f"{path}: {name} is no WAV file ({error}).") from error
    if form != (RATE_HZ, 2, 1) or len(frames) > 2 * SAMPLES:
        raise BadData(f"{path}: {name} is not up to one second of mono sound of 16 bit at {RATE_HZ} Hz.")
    clip = np.zeros(SAMPLES, np.int16)
    heard = np.frombuffer(frames, dtype="<i2")
    clip[SAMPLES - len(heard) :] = heard
    return clip
