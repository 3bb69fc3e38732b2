"""Tiny archives in the exact layout of the public ones, written in a second and read like the real thing."""

from __future__ import annotations

import hashlib
import io
import tarfile
import wave
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from training.data import daily_sports
from training.data.speech_commands import KEYWORDS, OTHER_WORDS


def tar_gz(path: Path, files: Mapping[str, bytes], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Noise (N, 3, 32, 32) whose brightness in one place tells the label."""
    x = np.random.default_rng(seed).integers(0, 200, size=(len(labels), 3, 32, 32)).astype(np.uint8)
    for position, label in enumerate(labels):
        x[position, label % 3, 3 * (label % 10) : 3 * (label % 10) + 3] = 255
    return x


def records(x: np.ndarray, *labels: np.ndarray) -> bytes:
    """Label bytes, then the red plane, the green and the blue, row by row."""
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, x.reshape(len(x), -1)], axis=1).tobytes()


def cifar10_files(each: int = 20) -> dict[str, bytes]:
    """Five batches of `each` records and a test batch of as many."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    files = {"batches.meta.txt": ("\n".join(names) + "\n\n").encode()}
    for number, file in enumerate([*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]):
        labels = np.arange(each) % 10
        files[file] = records(images(labels, number), labels)
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()} | {
        "cifar-10-batches-bin/readme.html": b"<html>"
    }


def cifar100_files(train: int = 1000, test: int = 100) -> dict[str, bytes]:
    """Two label bytes a record: the coarse one comes first."""
    files = {
        "fine_label_names.txt": "".join(f"fine {label}\n" for label in range(100)).encode(),
        "coarse_label_names.txt": "".join(f"coarse {label}\n" for label in range(20)).encode(),
    }
    for seed, (name, size) in enumerate({"train.bin": train, "test.bin": test}.items()):
        fine = np.arange(size) % 100
        files[name] = records(images(fine, seed), fine // 5, fine)
    return {f"cifar-100-binary/{name}": content for name, content in files.items()}


def wav(samples: np.ndarray, rate: int = 16000, channels: int = 1) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as sound:
        sound.setframerate(rate)
        sound.setsampwidth(2)
        sound.setnchannels(channels)
        sound.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()


def speech_files(speakers: int = 4) -> dict[str, bytes]:
    """Every word once by every speaker: the last speaker is for testing, the one before for validation."""
    random = np.random.default_rng(0)
    files = {"README.md": b"about", "_background_noise_/pink_noise.wav": wav(np.zeros(40000))}
    spoken: dict[int, list[str]] = {speaker: [] for speaker in range(speakers)}
    for pitch, word in enumerate(sorted(KEYWORDS + OTHER_WORDS)):
        for speaker in range(speakers):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            time = np.arange(16000 - 2000 * (speaker % 2)) / 16000
            tone = np.sin(2 * np.pi * (200 + 100 * pitch) * time)
            files[name] = wav(3000 * tone + random.normal(scale=30, size=len(time)))
            spoken[speaker].append(name)
    files["validation_list.txt"] = "".join(f"{name}\n" for name in spoken[speakers - 2]).encode()
    files["testing_list.txt"] = "".join(f"{name}\n" for name in spoken[speakers - 1]).encode()
    return files


def segment(activity: int, subject: int) -> bytes:
    """125 lines of 45 numbers: the activity in the first channel, the subject in the second."""
    row = f"{activity}.5,{subject}.25,-1.5e-01," + ",".join("0" for _ in range(daily_sports.CHANNELS - 3))
    return (row + "\n").encode() * daily_sports.STEPS


def daily_sports_files(segments: int = 1) -> dict[str, bytes]:
    return {
        f"data/a{activity:02d}/p{subject}/s{number:02d}.txt": segment(activity, subject)
        for activity in range(1, len(daily_sports.CLASSES) + 1)
        for subject in range(1, daily_sports.SUBJECTS + 1)
        for number in range(1, segments + 1)
    }
