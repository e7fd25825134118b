"""A study of a few spoken commands that its network learns by heart: real audio, real words.

Its dev split is its training speech, so that a test knows what should be heard. The fixture
`spoken_study` is one that is trained, in this process, for all tests.
"""

from __future__ import annotations

from pathlib import Path

import soundfile

from study.config import StudyConfig
from study.config_file import load
from study.data.espeak import SAMPLE_RATE, Prompt, synthesise
from tests.speech import SPLITS, write_manifest
from tests.study.small_study import TINY

TEXTS = [
    "turn on the red lamp",
    "call anna monday",
    "open seven blue doors",
    "set kitchen volume at ten",
]


def write_commands(folder: Path) -> Path:
    """The corpus; returns its folder, with `audio/0.wav`, ... at 16 kHz."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    for number, samples in enumerate(synthesise([Prompt(text=t, voice="en-us") for t in TEXTS])):
        soundfile.write(audio / f"{number}.wav", samples, SAMPLE_RATE)
    for split in SPLITS:
        entries = [
            {"id": f"{split}-{n}", "audio": f"audio/{n}.wav", "text": text, "speaker": "robot"}
            for n, text in enumerate(TEXTS)
        ]
        write_manifest(folder / f"{split}.jsonl", entries)
    return folder


def spoken_config(folder: Path, *options: str) -> StudyConfig:
    """One network, big enough for the commands."""
    shape = "encoder_layers: 1, encoder_dim: 32, attention_heads: 2, conv_kernel_size: 7"
    return load(
        TINY,
        [
            f"runs={folder / 'runs'}",
            f"corpus={{kind: manifest, folder: {write_commands(folder / 'corpus')}}}",
            "search={learning_rate: {low: 2e-3, high: 1e-2, log: true, role: nuisance}}",
            f"anchors=[{{name: small, {shape}, decoder_layers: 1, decoder_dim: 32}}]",
            "explore.trials=0",
            "refine.trials=0",
            "finalists={top: 0, anchors: false}",
            "training.budget={steps: 100}",
            "training.learning_rate=8e-3",
            "training.augmentation={frequency_masks: 0, time_masks: 0}",
            "tracking.enabled=false",
            *options,
        ],
    )


def commands(config: StudyConfig) -> list[Path]:
    """The recordings of its commands, one for each of `TEXTS`."""
    folder = config.runs.parent / "corpus" / "audio"
    return [folder / f"{number}.wav" for number in range(len(TEXTS))]
