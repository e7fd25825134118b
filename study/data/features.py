"""Log-mel features, computed once and kept on disk.

A store is keyed by the content of the audio files and by the feature settings, so that every trial
and every study that hears the same speech in the same way shares it. Its two files:

    features.f16   all frames one after the other, float16, memory-mapped when read
    index.npz      frames of each utterance, sums for the normalisation, what was wrong, and the
                   checksum of the frames

A store that is not as it was written, since a disk lost a bit or a copy was cut off, is computed
again.

Definition, as in ESPnet's `DefaultFrontend`: power spectrum (Hann window, centred, reflected at the
ends), Slaney mel filters, natural logarithm of at least 1e-10.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from study.data.audio import UNREADABLE, read_audio
from study.data.config import FeatureConfig
from study.data.corpus import Utterance
from study.files import replacing

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the key; to be raised when the definition of the features changes."""


class LogMel:
    """Computes the features of a signal."""

    def __init__(self, config: FeatureConfig) -> None:
        import torchaudio  # only where features are not in the cache yet

        window = round(config.window * config.sample_rate)
        self.config = config
        self._mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=1 << (window - 1).bit_length(),
            win_length=window,
            hop_length=round(config.hop * config.sample_rate),
            n_mels=config.mels,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
        )

    @property
    def window(self) -> int:
        """Samples of a window."""
        return int(self._mel.win_length)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self._mel.hop_length)

    @property
    def points(self) -> int:
        """Samples of a Fourier transform: the window, and zeros around it."""
        return int(self._mel.n_fft)

    @property
    def filters(self) -> Tensor:
        """The share of each frequency in each mel band `(points / 2 + 1, F)`."""
        filters: Tensor = self._mel.mel_scale.fb
        return filters

    def __call__(self, signal: Tensor, sample_rate: int) -> Tensor:
        """One channel of samples `(N,)` -> `(T, F)`, float32."""
        if sample_rate != self.config.sample_rate:
            import torchaudio

            signal = torchaudio.functional.resample(signal, sample_rate, self.config.sample_rate)
        mel: Tensor = self._mel(signal)
        return mel.clamp(min=1e-10).log().T


@dataclass(frozen=True)
class FeatureStore:
    """The features of a list of utterances."""

    frames: npt.NDArray[np.float16]
    """All frames `(N, F)`, memory-mapped."""
    lengths: npt.NDArray[np.int64]
    """Frames of each utterance; 0 where its audio could not be used."""
    offsets: npt.NDArray[np.int64]
    """First frame of each utterance."""
    sums: npt.NDArray[np.float64]
    """Sum and sum of squares over the frames of each utterance `(utterances, 2, F)`."""
    faults: dict[int, str]
    """What was wrong with the audio of an utterance, by its number."""

    def of(self, utterance: int) -> npt.NDArray[np.float16]:
        """The features `(T, F)` of an utterance by its number."""
        start = self.offsets[utterance]
        return self.frames[start : start + self.lengths[utterance]]

    def normalisation(self, utterances: list[int]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(F,)` over all frames of these utterances."""
        frames = self.lengths[utterances].sum()
        mean, square = self.sums[utterances].sum(axis=0) / frames
        std = np.sqrt(np.maximum(square - mean**2, 1e-20))
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def open_features(
    utterances: list[Utterance], audio: str, config: FeatureConfig, cache: Path
) -> FeatureStore:
    """The features of these utterances, computed now if they never were.

    `audio` is their `audio_fingerprint`. Audio that cannot be used is noted in `faults`. Features
    on disk that are damaged are computed again, with a warning.
    """
    key = hashlib.blake2b(
        json.dumps([VERSION, audio, asdict(config)], sort_keys=True).encode(), digest_size=16
    ).hexdigest()
    folder = cache / "features" / key
    if not (folder / "index.npz").is_file():
        _compute(utterances, config, folder)
    elif fault := _fault(folder, len(utterances), config.mels):
        log.warning("%s: the cached features are damaged (%s): computing them again", folder, fault)
        _compute(utterances, config, folder)
    store = _load(folder, config.mels)
    if any(_reads_by_now(utterances[number], fault) for number, fault in store.faults.items()):
        log.warning("%s: audio that could not be read can be by now: computing anew", folder)
        _compute(utterances, config, folder)
        store = _load(folder, config.mels)
    return store


def _reads_by_now(utterance: Utterance, fault: str) -> bool:
    """Whether audio that could not be read can be: a disk answers again, a library is newer."""
    return UNREADABLE in fault and not isinstance(read_audio(utterance), str)


def _fault(folder: Path, utterances: int, mels: int) -> str | None:
    """What is wrong with the files of a store; None where they are as they were written."""
    data = folder / "features.f16"
    try:
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            index = {name: file[name] for name in file.files}  # which compares their checksums
        lengths = index["lengths"]
        if len(lengths) != utterances or data.stat().st_size != lengths.sum() * mels * 2:
            return "of another size"
        written = index.get("checksum")  # older versions wrote none
        return None if written in (None, _checksum(data)) else "the checksum differs"
    except Exception as error:  # bytes that mean nothing can raise anything
        return str(error).partition("\n")[0]


def _checksum(file: Path) -> int:
    """The CRC-32 of a file's content."""
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _load(folder: Path, mels: int) -> FeatureStore:
    with np.load(folder / "index.npz", allow_pickle=False) as index:
        lengths, sums, faults = index["lengths"], index["sums"], str(index["faults"])
    shape = (int(lengths.sum()), mels)
    frames: npt.NDArray[np.float16] = (
        np.memmap(folder / "features.f16", dtype=np.float16, mode="r", shape=shape)
        if shape[0]
        else np.zeros(shape, dtype=np.float16)
    )
    return FeatureStore(
        frames=frames,
        lengths=lengths,
        offsets=np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64),
        sums=sums,
        faults={int(number): fault for number, fault in json.loads(faults).items()},
    )


def _compute(utterances: list[Utterance], config: FeatureConfig, folder: Path) -> None:
    started = time.monotonic()
    log.info("Computing the features of %d utterances", len(utterances))
    lengths = np.zeros(len(utterances), dtype=np.int64)
    sums = np.zeros((len(utterances), 2, config.mels))
    faults: dict[int, str] = {}
    checksum = 0
    with replacing(folder / "features.f16") as data, data.open("wb") as file:
        for number, result in enumerate(_extract(utterances, config)):
            if isinstance(result, str):
                faults[number] = result
                continue
            checksum = zlib.crc32(result.tobytes(), checksum)
            file.write(result.tobytes())
            exact = result.astype(np.float64)
            lengths[number] = len(result)
            sums[number] = exact.sum(axis=0), np.square(exact).sum(axis=0)
    with replacing(folder / "index.npz") as index, index.open("wb") as file:
        np.savez(
            file,
            lengths=lengths,
            sums=sums,
            faults=np.array(json.dumps(faults)),
            checksum=np.array(checksum, dtype=np.int64),
        )
    log.info("Computed them in %.1f s", time.monotonic() - started)


def _extract(
    utterances: list[Utterance], config: FeatureConfig
) -> Iterator[npt.NDArray[np.float16] | str]:
    """The features of each utterance in order, or what is wrong with its audio."""
    log_mel = LogMel(config)

    def one(utterance: Utterance) -> npt.NDArray[np.float16] | str:
        signal = read_audio(utterance)
        if isinstance(signal, str):
            return signal
        samples, sample_rate = signal
        if len(samples) / sample_rate < config.window:
            return f"the audio is {len(samples) / sample_rate:.3f} s long, shorter than a window"
        features = log_mel(torch.from_numpy(samples), sample_rate)
        if not torch.isfinite(features).all():
            return "the audio has samples that are not finite numbers"
        return features.half().numpy()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one thread for each utterance, several utterances at once
    try:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as executor:
            for start in range(0, len(utterances), 1024):  # a bounded number in memory
                yield from executor.map(one, utterances[start : start + 1024])
    finally:
        torch.set_num_threads(threads)
