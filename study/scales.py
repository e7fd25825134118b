"""The rules by which `init` chooses what a study searches and spends, as one table.

A row is for so many hours of training speech on a GPU; on a processor the first one serves whatever
there is. The ranges are those of the ready-made studies of that size (`studies/`): wide enough to
hold the answer in their middle, and no wider, since every value costs trials.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a study of so much speech searches and spends."""

    hours: float
    """Of training speech, from which on this is for; on a GPU."""
    why: str
    search: dict[str, str]
    """The six, and the learning rate."""
    anchors: tuple[str, ...]
    mels: int
    channels: int
    """Of the front block."""
    decoder_ratio: int
    """Of the decoder's feed-forward modules."""
    ctc_weight: float
    learning_rate: str
    decoder_scale: float
    """Learning rate of the decoder in units of `learning_rate`."""
    batch_seconds: float
    epochs: float
    evaluations: int
    explore: int
    refine: int
    top: int
    frequency_mask_width: int


SMALL = Scale(
    hours=0,
    why="networks of up to about a million parameters: what a processor trains in minutes",
    search={
        "encoder_layers": "{low: 1, high: 4}",
        "encoder_dim": "{choices: [32, 48, 64, 96]}",
        "attention_heads": "{choices: [1, 2, 4]}",
        "conv_kernel_size": "{choices: [3, 7, 15, 31]}",
        "decoder_layers": "{low: 1, high: 2}",
        "decoder_dim": "{choices: [32, 64, 96]}",
        "learning_rate": "{low: 7.0e-4, high: 5.0e-3, log: true, role: nuisance}",
    },
    anchors=(
        "{name: middle, encoder_layers: 2, encoder_dim: 64, attention_heads: 2,\n"
        "     conv_kernel_size: 15, decoder_layers: 1, decoder_dim: 64}",
    ),
    mels=40,
    channels=16,
    decoder_ratio=4,
    ctc_weight=0.5,
    learning_rate="2.0e-3",
    decoder_scale=1.0,
    batch_seconds=15,
    epochs=30,
    evaluations=6,
    explore=16,
    refine=8,
    top=2,
    frequency_mask_width=8,
)
SCALES = (
    SMALL,
    Scale(
        hours=1,
        why="around the paper's smallest network, which a few hours of speech can still feed",
        search={
            "encoder_layers": "{choices: [2, 4, 8, 12, 16]}",
            "encoder_dim": "{choices: [96, 144, 192, 256]}",
            "attention_heads": "{choices: [2, 4, 8]}",
            "conv_kernel_size": "{choices: [3, 7, 15, 31]}",
            "decoder_layers": "{choices: [1, 2, 4]}",
            "decoder_dim": "{choices: [128, 192, 256]}",
            "learning_rate": "{low: 5.0e-4, high: 4.0e-3, log: true, role: nuisance}",
        },
        anchors=("conformer-s",),
        mels=80,
        channels=64,
        decoder_ratio=4,
        ctc_weight=0.3,
        learning_rate="1.5e-3",
        decoder_scale=1.0,
        batch_seconds=120,
        epochs=60,
        evaluations=12,
        explore=32,
        refine=32,
        top=3,
        frequency_mask_width=27,
    ),
    Scale(
        hours=20,
        why="around ESPnet's recipe for 100 hours, and the paper's smallest network",
        search={
            "encoder_layers": "{choices: [4, 8, 12, 16]}",
            "encoder_dim": "{choices: [144, 192, 256, 384]}",
            "attention_heads": "{choices: [2, 4, 8]}",
            "conv_kernel_size": "{choices: [3, 7, 15, 31]}",
            "decoder_layers": "{choices: [1, 2, 4, 6]}",
            "decoder_dim": "{choices: [128, 256, 384]}",
            "learning_rate": "{low: 5.0e-4, high: 4.0e-3, log: true, role: nuisance}",
        },
        anchors=("espnet-librispeech-100", "conformer-s"),
        mels=80,
        channels=144,
        decoder_ratio=8,
        ctc_weight=0.3,
        learning_rate="1.5e-3",
        decoder_scale=1.0,
        batch_seconds=320,
        epochs=30,
        evaluations=10,
        explore=32,
        refine=32,
        top=3,
        frequency_mask_width=27,
    ),
    Scale(
        hours=300,
        why="around ESPnet's recipes for a thousand hours, and the paper's middle network",
        search={
            "encoder_layers": "{choices: [8, 12, 17]}",
            "encoder_dim": "{choices: [256, 384, 512]}",
            "attention_heads": "{choices: [4, 8]}",
            "conv_kernel_size": "{choices: [7, 15, 31]}",
            "decoder_layers": "{choices: [1, 3, 6]}",
            "decoder_dim": "{choices: [256, 384, 512]}",
            "learning_rate": "{low: 3.0e-4, high: 3.0e-3, log: true, role: nuisance}",
        },
        anchors=("espnet-librispeech", "conformer-m"),
        mels=80,
        channels=256,
        decoder_ratio=4,
        ctc_weight=0.3,
        learning_rate="1.0e-3",
        decoder_scale=1.0,
        batch_seconds=600,
        epochs=15,
        evaluations=15,
        explore=24,
        refine=24,
        top=2,
        frequency_mask_width=27,
    ),
)
"""The rows, by hours."""

PIECES = ((300, 5000), (50, 2000), (10, 500))
"""Hours of training speech from which on SentencePiece learns so many pieces; below, characters."""
PROCESSOR_HOURS = 45.0
"""Hours that a trial on a processor may hear, epochs together: a quarter of an hour and more.

Read speech of 200 people was no more than guessed at by small networks that had heard 20 hours of
it, and a fifth of its words were right after 40: fewer would compare shapes of which none works."""


def scale_of(hours: float, device: str) -> Scale:
    """The row of the table for so many hours of training speech."""
    if device == "cpu":
        return SMALL
    return [scale for scale in SCALES if hours >= scale.hours][-1]
