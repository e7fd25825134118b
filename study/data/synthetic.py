"""The corpus that needs no data set: commands to a house and an agenda, synthesised.

Four sentence patterns over 63 words, spoken by eSpeak NG (see `study.data.espeak`) and
recorded in rooms and noises (see `study.data.acoustics`). It is small enough to train on in
seconds and hard enough that shapes differ. No speaker and no sentence of one split occurs
in another. `SyntheticCorpus(...).read(cache)` synthesises it once, and then finds it there:

    cache/synthetic-<hash of settings and versions>/
        settings.json   what made it
        corpus.jsonl    one utterance a line: text, speaker and how it was recorded
        train/*.flac    16 kHz, mono, 16 bit; likewise dev and test

The same settings give the same samples on one machine with the same versions of its
libraries. With more training utterances, the earlier ones, dev and test stay as they were.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import soundfile
from annotated_types import Ge, Le
from numpy.typing import NDArray

from study.data import acoustics
from study.data.corpus import SPLITS, Corpus, Utterance
from study.data.espeak import SAMPLE_RATE, Prompt, synthesise
from study.errors import InputError

Samples = NDArray[np.int16]

_log = logging.getLogger(__name__)

GENERATOR = 1
"""Raise it with every change that alters texts or samples: caches are named after it."""

_UNITS = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TENS = ["twenty", "thirty", "forty"]
_HOURS = [*_UNITS, "ten"]
_NUMBERS = [*_HOURS, *_TENS, *(f"{ten} {unit}" for ten in _TENS for unit in _UNITS)]
_COLOURS = ["red", "green", "blue", "yellow", "orange", "purple"]
_ROOMS = ["kitchen", "bedroom", "office", "garage", "garden", "cellar"]
_NAMES = ["anna", "peter", "maria", "oscar", "julia", "simon"]
_DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

# No two of these words sound alike in any of the accents below (so: no "to", no "for").
PATTERNS: dict[str, tuple[list[str], ...]] = {
    "switch": (
        ["turn", "switch"],
        ["on", "off"],
        ["", "the"],
        _COLOURS,
        _ROOMS,
        ["lamp", "radio", "fan", "printer"],
    ),
    "set": (["set", "keep"], _ROOMS, ["volume", "timer", "alarm", "oven"], ["at"], _NUMBERS),
    "call": (["call", "meet", "email"], _NAMES, _DAYS, ["at"], _HOURS),
    "open": (
        ["open", "close", "lock"],
        _NUMBERS,
        _COLOURS,
        ["windows", "doors", "curtains", "boxes"],
    ),
}
"""Each sentence pattern as the choices for its places in turn."""

VOICES: dict[str, tuple[str, ...]] = {
    "train": (
        *("en-us+m1", "en-gb-x-rp+f1", "en-gb-scotland+m2", "en-us-nyc+f2", "en+m3"),
        *("en-029+f3", "en-us+Alex", "en-gb-x-gbclan+belinda", "en+linda", "en-gb-x-gbcwmd+m4"),
        *("en-us+Annie", "en+Mike", "en-gb-x-rp+Nguyen", "en-us+Reed", "en-gb-scotland+aunty"),
        *("en-us-nyc+rob", "en-029+edward", "en-us+steph", "en-gb-x-rp+victor", "en+Michael"),
    ),
    "dev": (
        *("en-us+f4", "en+robert", "en-gb-x-rp+Denis", "en-gb-scotland+shelby"),
        *("en-us-nyc+travis", "en-029+Henrique", "en-us+david", "en+grandma"),
    ),
    "test": (
        *("en-us+m7", "en+f5", "en-gb-x-rp+boris", "en-gb-scotland+steph2"),
        *("en-us-nyc+quincy", "en-029+announcer", "en-us+iven3", "en+Lee"),
    ),
    "babble": (
        "en-us+m8",
        "en+anika",
        "en-us+Mario",
        "en-gb-x-rp+caleb",
        "en+ian",
        "en-us+norbert",
    ),
}
"""The speakers of each split, and those who talk in the background."""

_BABBLE_SENTENCES = 15  # of each background speaker: some 25 seconds
_RATES = (130, 180)  # words per minute
_PITCHES = (25, 75)  # of 100
_DECAYS = (0.15, 0.45)  # seconds, reverberation
_DIRECT = (0.0, 10.0)  # dB, direct sound over reverberation
_HELD_OUT = 0.2  # of all sentences, for dev and for test each


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus(Corpus):
    """Settings of the synthetic corpus."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    kind: Literal["synthetic"] = "synthetic"
    """Names this kind of corpus."""
    train_utterances: Annotated[int, Ge(1)] = 2000
    """About 1.7 seconds each, by 20 speakers."""
    dev_utterances: Annotated[int, Ge(1)] = 400
    """By 8 other speakers."""
    test_utterances: Annotated[int, Ge(1)] = 400
    """By 8 others again."""
    lowest_snr: Annotated[float, Ge(-20), Le(100)] = 8.0
    """Speech over noise in dB, of the noisiest utterances."""
    highest_snr: Annotated[float, Ge(-20), Le(100)] = 30.0
    """Speech over noise in dB, of the cleanest utterances."""
    reverberant_share: Annotated[float, Ge(0), Le(1)] = 0.5
    """Of the utterances, how many are recorded in a room that echoes; from 0 to 1."""
    seed: Annotated[int, Ge(0)] = 0
    """Another seed, another corpus: texts, manners of speech, rooms and noises."""

    def __post_init__(self) -> None:
        """Raises `ValueError` on settings that contradict each other."""
        if self.lowest_snr > self.highest_snr:
            raise ValueError(
                f"lowest_snr ({self.lowest_snr:g} dB) is above highest_snr "
                f"({self.highest_snr:g} dB)"
            )

    def read(self, cache: Path) -> dict[str, list[Utterance]]:
        """The utterances of each split, synthesised into `cache` if they are not there yet.

        Several processes may do so at once: the first to finish wins, and the others use
        its files. Raises `InputError` if eSpeak NG is not to be had or `cache` is not
        writable.
        """
        common = {setting.name for setting in fields(Corpus)}  # of no effect on what is made
        settings = {
            **{name: value for name, value in asdict(self).items() if name not in common},
            "generator": GENERATOR,
            "espeakng_loader": _installed("espeakng_loader"),
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        folder = cache.resolve() / f"synthetic-{digest[:12]}"
        if not folder.is_dir():
            try:
                _publish(self, settings, folder)
            except OSError as error:
                raise InputError(
                    f"The synthetic corpus cannot be written into {folder.parent}: {error}."
                ) from error
        return _load(folder)


def sentences(seed: int) -> dict[str, dict[str, list[str]]]:
    """All sentences there are, dealt to the splits: `[split][pattern]`, in random order."""
    rng = np.random.default_rng([seed, len(SPLITS)])
    dealt: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for pattern, places in PATTERNS.items():
        everything = [" ".join(filter(None, words)) for words in product(*places)]
        shuffled = [everything[i] for i in rng.permutation(len(everything))]
        share = int(_HELD_OUT * len(shuffled))
        dealt["dev"][pattern] = shuffled[:share]
        dealt["test"][pattern] = shuffled[share : 2 * share]
        dealt["train"][pattern] = shuffled[2 * share :]
    return dealt


@dataclass(frozen=True, kw_only=True)
class _Recording:
    """What is decided about an utterance before it is spoken."""

    id: str
    split: str
    prompt: Prompt
    noise: str
    snr: float
    decay: float | None
    """Seconds of reverberation, if any."""
    direct: float
    rng: np.random.Generator = field(repr=False)
    """Draws the samples of echoes and noise."""

    def record(self, speech: acoustics.Waveform, crowd: acoustics.Waveform) -> Samples:
        """The 16-bit samples that the microphone hears."""
        if self.decay is not None:
            speech = acoustics.reverberate(
                speech,
                decay=self.decay,
                direct=self.direct,
                sample_rate=SAMPLE_RATE,
                rng=self.rng,
            )
        noise = acoustics.noise(
            self.noise, speech.size, sample_rate=SAMPLE_RATE, crowd=crowd, rng=self.rng
        )
        heard = acoustics.level(acoustics.mix(speech, noise, self.snr))
        samples: Samples = np.round(heard * 32767.0).astype(np.int16)
        return samples

    def entry(self, audio: str, duration: float) -> dict[str, Any]:
        """Its line in the manifest."""
        return {
            "id": self.id,
            "split": self.split,
            "audio": audio,
            "text": self.prompt.text,
            "speaker": self.prompt.voice,
            "duration": duration,
            "rate": self.prompt.rate,
            "pitch": self.prompt.pitch,
            "noise": self.noise,
            "snr": round(self.snr, 2),
            "reverberation": self.decay and round(self.decay, 3),
        }


def _recordings(corpus: SyntheticCorpus) -> Iterator[_Recording]:
    """Every utterance, in the order in which they are spoken."""
    dealt = sentences(corpus.seed)
    # Training comes last, since a sentence can change how the next ones sound: so dev and
    # test stay the same, however much there is to train on.
    for split in ("test", "dev", "train"):
        taken = dict.fromkeys(PATTERNS, 0)
        for number in range(getattr(corpus, f"{split}_utterances")):
            rng = np.random.default_rng([corpus.seed, SPLITS.index(split), number])
            pattern = str(rng.choice(list(PATTERNS)))
            choices = dealt[split][pattern]
            text = choices[taken[pattern] % len(choices)]
            taken[pattern] += 1
            rate, pitch = (
                int(rng.integers(*bounds, endpoint=True)) for bounds in (_RATES, _PITCHES)
            )
            decay, direct = rng.uniform(*_DECAYS), rng.uniform(*_DIRECT)
            echoes = rng.random() < corpus.reverberant_share
            voice = VOICES[split][number % len(VOICES[split])]
            yield _Recording(
                id=f"{split}-{number:05d}",
                split=split,
                prompt=Prompt(text=text, voice=voice, rate=rate, pitch=pitch),
                noise=str(rng.choice(acoustics.NOISES)),
                snr=rng.uniform(corpus.lowest_snr, corpus.highest_snr),
                decay=decay if echoes else None,
                direct=direct,
                rng=rng,
            )


def _generate(corpus: SyntheticCorpus, folder: Path) -> None:
    """Speaks, records and writes the whole corpus into the new `folder`."""
    recordings = list(_recordings(corpus))
    chatter = sentences(corpus.seed)["train"]["call"]
    background = [
        Prompt(text=text, voice=voice)
        for number, voice in enumerate(VOICES["babble"])
        for text in chatter[number * _BABBLE_SENTENCES : (number + 1) * _BABBLE_SENTENCES]
    ]
    prompts = [*background, *(recording.prompt for recording in recordings)]
    for split in SPLITS:
        (folder / split).mkdir()
    entries = []
    with closing(synthesise(prompts)) as speech:
        rows = [list(islice(speech, _BABBLE_SENTENCES)) for _ in VOICES["babble"]]
        crowd = acoustics.babble(rows)
        for recording, spoken in zip(recordings, speech, strict=True):
            samples = recording.record(spoken.astype(np.float64), crowd)
            audio = f"{recording.split}/{recording.id}.flac"
            # Through memory: a full disk is then an error and not a short file.
            flac = io.BytesIO()
            soundfile.write(flac, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
            (folder / audio).write_bytes(flac.getvalue())
            entries.append(recording.entry(audio, samples.size / SAMPLE_RATE))
    entries.sort(key=lambda entry: SPLITS.index(entry["split"]))
    manifest = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "corpus.jsonl").write_text(manifest, encoding="utf-8")


def _publish(corpus: SyntheticCorpus, settings: dict[str, Any], folder: Path) -> None:
    """Makes `folder` appear whole or not at all, whoever else is about the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".{folder.name}-{secrets.token_hex(6)}"
    count = corpus.train_utterances + corpus.dev_utterances + corpus.test_utterances
    _log.info("Synthesising %d utterances into %s ...", count, folder)
    begin = time.monotonic()
    unfinished.mkdir()
    try:
        (unfinished / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        _generate(corpus, unfinished)
        try:
            os.rename(unfinished, folder)  # noqa: PTH104 - beside `folder`, as atomic as it gets
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _log.info("Synthesised %d utterances in %.1f s.", count, time.monotonic() - begin)


def _load(folder: Path) -> dict[str, list[Utterance]]:
    """What a finished folder holds."""
    manifest = folder / "corpus.jsonl"
    splits: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    try:
        for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
            entry = json.loads(line)
            splits[entry["split"]].append(
                Utterance(
                    id=entry["id"],
                    audio=folder / entry["audio"],
                    text=entry["text"],
                    speaker=entry["speaker"],
                    duration=entry["duration"],
                    source=f"{manifest.name}:{number}",
                )
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"The synthetic corpus in {folder} is damaged ({error!r}): delete this folder and "
            "it will be made again."
        ) from error
    return splits


def _installed(package: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"The synthetic corpus needs the package {package}, which is not installed: "
            "run `pip install espeakng-loader`."
        ) from error
