"""The settings of features, tokens and augmentation, as they stand in study.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Log-mel features; the defaults are ESPnet's with a 10 ms hop."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    mels: Annotated[int, Ge(7)] = 80
    """Mel bands; the front block needs 7 at least."""
    sample_rate: Annotated[int, Ge(4000)] = 16000
    """Hz; audio at another rate is resampled."""
    window: Annotated[float, Gt(0), Le(0.1)] = 0.025
    """Seconds of audio in a frame."""
    hop: Annotated[float, Gt(0), Le(0.1)] = 0.010
    """Seconds from one frame to the next."""


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """What the recogniser writes."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["character", "bpe"] = "character"
    """`character`: every character of the training transcripts; `bpe`: SentencePiece pieces."""
    size: Annotated[int, Ge(8)] | None = None
    """Number of pieces that `bpe` learns."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779) without time warping."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    frequency_masks: Annotated[int, Ge(0)] = 2
    """Masks along the mel axis of each utterance."""
    frequency_mask_width: Annotated[int, Ge(1)] = 27
    """Mel bands; a mask is narrower than this."""
    time_masks: Annotated[int, Ge(0)] = 5
    """Masks along the time axis of each utterance."""
    time_mask_share: Annotated[float, Gt(0), Le(1)] = 0.05
    """A mask is shorter than this share of the batch's longest utterance."""
