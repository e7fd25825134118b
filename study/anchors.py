"""Shapes known from elsewhere, by name: the reference points of a study.

The paper's decoder is one LSTM layer (arXiv 2005.08100, table 1); here its depth and width are
those of whatever decoder the study has. The paper says kernel 32; a symmetric one needs an odd
size.
"""

from __future__ import annotations

from model.config import SHAPE

ANCHORS: dict[str, dict[str, int]] = {
    name: dict(zip(SHAPE, values, strict=True))
    for name, values in {
        "conformer-s": (16, 144, 4, 31, 1, 320),  # the paper
        "conformer-m": (16, 256, 4, 31, 1, 640),
        "conformer-l": (17, 512, 8, 31, 1, 640),
        "espnet-librispeech-100": (12, 256, 4, 31, 6, 256),  # egs2/librispeech_100/asr1
        "espnet-librispeech": (12, 512, 8, 31, 6, 512),  # egs2/librispeech/asr1
        "espnet-ksponspeech": (12, 512, 8, 31, 6, 512),  # egs2/ksponspeech/asr1
    }.items()
}

RECIPES: dict[str, dict[str, int | float | str]] = {
    "conformer-s": {"decoder": "transducer", "ctc_weight": 0.0},
    "conformer-m": {"decoder": "transducer", "ctc_weight": 0.0},
    "conformer-l": {"decoder": "transducer", "ctc_weight": 0.0},
    "espnet-librispeech-100": {"decoder_heads": 4, "decoder_feed_forward_ratio": 8},
    "espnet-librispeech": {"decoder_heads": 8, "decoder_feed_forward_ratio": 4},
    "espnet-ksponspeech": {"decoder_heads": 8, "decoder_feed_forward_ratio": 4},
}
"""What else of `network` those shapes were published with: a study keeps its own."""

VOCABULARIES = {
    "conformer-s": 1024,
    "conformer-m": 1024,
    "conformer-l": 1024,
    "espnet-librispeech-100": 5000,
    "espnet-librispeech": 5000,
    "espnet-ksponspeech": 2309,
}
"""Their vocabularies, special tokens included."""
