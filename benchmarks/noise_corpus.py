"""A corpus of noise with made-up words: for measuring speed where there is no speech.

    write(folder, utterances=400, mean=12.0)    # train.jsonl, dev.jsonl, test.jsonl and audio

What a step costs depends on lengths, and on nothing that is said: seconds are log-normal, as those
of read sentences are, and there are two words a second.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
"""Samples a second."""
SHORTEST, LONGEST = 1.0, 3.0
"""Seconds; and in units of the mean."""
HELD_OUT = 20
"""One utterance of so many goes to dev, and as many to test."""
WORDS = [
    first + second
    for first in ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi")
    for second in ("", "bo", "du", "fe", "gi", "ka", "lo", "mu", "ne", "pi", "ra", "so", "tu")
]


def write(folder: Path, *, utterances: int, mean: float, seed: int = 0) -> Path:
    """Write it, about `mean` seconds an utterance; returns the folder."""
    generator = np.random.default_rng(seed)
    seconds = generator.lognormal(np.log(mean), 0.4, utterances).clip(SHORTEST, LONGEST * mean)
    (folder / "audio").mkdir(parents=True)
    lines: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for number, length in enumerate(seconds):
        split = {0: "dev", 1: "test"}.get(number % HELD_OUT, "train")
        audio = f"audio/{number}.flac"
        noise = 0.1 * generator.standard_normal(int(length * RATE))
        soundfile.write(folder / audio, noise, RATE)
        text = " ".join(generator.choice(WORDS, max(1, round(2 * length))))
        lines[split].append(json.dumps({"id": str(number), "audio": audio, "text": text}) + "\n")
    for split, entries in lines.items():
        (folder / f"{split}.jsonl").write_text("".join(entries))
    return folder
