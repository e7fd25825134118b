"""Speech in, text out: a trained network with its features, its tokens and a way to decode.

    transcriber = Transcriber(chosen, torch.device("cpu"))      # chosen: from study.winner
    for transcript in transcriber.transcribe(recordings):
        print(transcript.text)

Recordings of any sample rate are resampled, channels averaged, long ones cut at pauses
(`study.transcription.pauses`). The pieces of all recordings are decoded in batches, in order; a
network of this project hears in a batch what it hears alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.subsampling import SHORTEST
from study.data.config import FeatureConfig
from study.data.features import LogMel
from study.transcription.pauses import Piece, cut
from study.transcription.recordings import BadRecording, Recording
from study.transcription.trained import Trained, load

BATCH_SECONDS = 60.0
"""Seconds of audio that are decoded together, padding included."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a recording and what was said in it."""

    start: float
    """Seconds into the recording."""
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What was said in a recording, or why that is not known."""

    recording: Recording
    segments: list[Segment]
    fault: str | None = None
    """Why the recording could not be read to its end; `segments` are those before it."""

    @property
    def text(self) -> str:
        """The words of all segments."""
        return " ".join(segment.text for segment in self.segments if segment.text)


def shortest(features: FeatureConfig) -> float:
    """Seconds of audio that a network needs at least."""
    return max(features.window, SHORTEST * features.hop)


class Transcriber:
    """Transcribes recordings with a trained network."""

    def __init__(self, chosen: Trained, device: torch.device) -> None:
        ready = load(chosen, device)
        self.decoding = chosen.decoding
        """Of the beam search."""
        self.sample_rate = chosen.features.sample_rate
        """Hz, of what the network hears."""
        self.shortest = shortest(chosen.features)
        self.longest = max(chosen.longest, 4 * self.shortest)
        """Seconds of the longest piece."""
        self._recogniser = ready.recogniser
        self._tokenizer = ready.tokenizer
        self._log_mel = LogMel(chosen.features)

    def transcribe(
        self, recordings: Iterable[Recording], *, greedy: bool = False
    ) -> Iterator[Transcript]:
        """The transcript of each recording, in order, as soon as it is known.

        By beam search; `greedy` takes the likeliest token each time instead.
        """
        ended: list[Transcript] = []
        batch: list[tuple[list[Segment], Piece]] = []
        for recording in recordings:
            segments: list[Segment] = []
            fault = None
            try:
                for piece in cut(recording.blocks(), recording.sample_rate, self.longest):
                    if batch and _padded([*batch, (segments, piece)]) > BATCH_SECONDS:
                        self._decode(batch, greedy)
                        yield from ended
                        batch, ended = [], []
                    batch.append((segments, piece))
            except BadRecording as error:
                fault = str(error)
            ended.append(Transcript(recording=recording, segments=segments, fault=fault))
        self._decode(batch, greedy)
        yield from ended

    def _decode(self, batch: list[tuple[list[Segment], Piece]], greedy: bool) -> None:
        """Add to each recording what is said in its pieces.

        A piece of silence, every sample the same, says nothing.
        """
        heard = [piece for _, piece in batch if np.ptp(piece.samples) > 0]
        texts = iter(self._hear(heard, greedy) if heard else [])
        for segments, piece in batch:
            text = next(texts) if np.ptp(piece.samples) > 0 else ""
            segments.append(Segment(start=piece.start, end=piece.end, text=text))

    @torch.no_grad()
    def _hear(self, pieces: list[Piece], greedy: bool) -> list[str]:
        device = self._recogniser.feature_mean.device
        features = [self._features(piece) for piece in pieces]
        lengths = torch.tensor([len(each) for each in features])
        padded = nn.utils.rnn.pad_sequence(features, batch_first=True)  # (B, T, F)
        memory, lengths = self._recogniser.encode(
            padded.to(device), lengths.to(device), ragged=len(set(lengths.tolist())) > 1
        )
        found = self._recogniser.transcribe(memory, lengths, None if greedy else self.decoding)
        return [self._tokenizer.decode(tokens) for tokens in found.decoder]

    def _features(self, piece: Piece) -> Tensor:
        """As in training, where features are kept in float16."""
        return self._log_mel(torch.from_numpy(piece.samples), piece.sample_rate).half().float()


def _padded(batch: list[tuple[list[Segment], Piece]]) -> float:
    return len(batch) * max(piece.end - piece.start for _, piece in batch)
