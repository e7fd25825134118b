"""Speech synthesis through eSpeak NG, loaded at run time by ctypes.

Used by `study.data.synthetic`: `synthesise(prompts)` yields one waveform per prompt.
The library keeps state between sentences (its random numbers, the tail of a filter), so
that a sentence sounds a little different after another one. Hence each call starts a
process of its own, seeds it and speaks the prompts in their order: the same prompts give
the same samples, bit for bit, on the same machine and version of the library.

eSpeak NG is free software under the GPL-3.0. It comes with the package `espeakng_loader`;
nothing of it is part of this project or distributed with it.

`python -m study.data.espeak LIBRARY DATA` is that process: prompts arrive on stdin as JSON
lines, waveforms leave on stdout as a 32-bit count and that many 16-bit samples at 22 050 Hz.
A negative count announces that many bytes of a sentence for people, and the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import NDArray

from study.errors import InputError
from study.provenance import importable

SAMPLE_RATE = 16_000
"""Hz, of what `synthesise` yields."""

_NATIVE_RATE = 22_050
_UP, _DOWN = 320, 441  # 16 000 / 22 050 in lowest terms
_LONGEST_DATA_PATH = 140  # bytes; the library cuts its data path at 160, file names included
_COUNT = struct.Struct("<i")

# From speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_RATE, _PITCH = 1, 3
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One sentence and how to say it."""

    text: str
    """What to say."""
    voice: str
    """`accent+variant`, such as `en-us+f2`."""
    rate: int = 175
    """Words per minute, at least 80."""
    pitch: int = 50
    """0 to 100, where 50 is the voice's own pitch."""


def synthesise(prompts: Iterable[Prompt]) -> Generator[NDArray[np.float32], None, None]:
    """Each prompt's waveform at 16 kHz, full scale ±1, in order.

    Raises `InputError` if eSpeak NG cannot be loaded or does not know a voice.
    """
    library, data = _installation()
    orders = "".join(json.dumps(asdict(prompt)) + "\n" for prompt in prompts)
    count = orders.count("\n")
    command = [sys.executable, "-m", "study.data.espeak", library, data]
    # A file, not a pipe, takes the complaints: a full pipe would stop the child.
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=importable(os.environ),
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            try:
                process.stdin.write(orders.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass  # it died early; what it said is read below
            for _ in range(count):
                yield _resample(_receive(process.stdout, complaints))
        finally:
            process.kill()


def _installation() -> tuple[str, str]:
    """The paths of the library and of its data."""
    try:
        import espeakng_loader

        return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())
    except (ImportError, RuntimeError) as error:
        raise InputError(
            "The synthetic corpus needs eSpeak NG, which is not installed "
            f"({error}): run `pip install espeakng-loader`."
        ) from error


def _receive(stream: IO[bytes], complaints: IO[bytes]) -> NDArray[np.int16]:
    """The next waveform from the child, at the library's own sampling rate."""
    head = stream.read(_COUNT.size)
    if len(head) == _COUNT.size:
        (count,) = _COUNT.unpack(head)
        body = stream.read(-count if count < 0 else 2 * count)
        if count < 0:
            raise InputError(body.decode())
        if len(body) == 2 * count:
            return np.frombuffer(body, dtype="<i2")
    complaints.seek(0)
    raise RuntimeError(
        "The speech synthesis ended early: " + complaints.read()[-2000:].decode(errors="replace")
    )


_filter: list[NDArray[np.float32]] = []  # resample_poly's own, which it would design each time


def _resample(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    from scipy import signal

    if not _filter:
        window = signal.firwin(20 * _DOWN + 1, 1 / _DOWN, window=("kaiser", 5.0))
        _filter.append(window.astype(np.float32))
    waveform = samples.astype(np.float32) / np.float32(32768)
    resampled: NDArray[np.float32] = signal.resample_poly(waveform, _UP, _DOWN, window=_filter[0])
    return resampled


class _Espeak:
    """The library in this process. There can be only one."""

    def __init__(self, library: str, data: str) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise InputError(
                f"eSpeak NG cannot be loaded ({error}): reinstall the package espeakng-loader."
            ) from error
        self._data = Path(data)
        self._links = ExitStack()
        home = data
        if len(os.fsencode(data)) > _LONGEST_DATA_PATH:
            folder = self._links.enter_context(tempfile.TemporaryDirectory())
            home = str(Path(folder) / "data")
            Path(home).symlink_to(self._data, target_is_directory=True)
        rate = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(home), _DO_NOT_EXIT
        )
        if rate != _NATIVE_RATE:
            self._links.close()
            raise InputError(
                f"eSpeak NG cannot read its voices in {data}: reinstall the package "
                "espeakng-loader."
            )
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        # After initialising, which seeds it with the time of day.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def close(self) -> None:
        self._links.close()

    def choose(self, voice: str) -> None:
        """Speaks with `voice` from now on. Raises `InputError` if there is none."""
        # An unknown variant is not an error to the library: it speaks without one.
        _, plus, variant = voice.partition("+")
        known = not plus or (bool(variant) and (self._data / "voices" / "!v" / variant).is_file())
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"eSpeak NG has no voice {voice!r} in {self._data}.")

    def say(self, prompt: Prompt) -> bytes:
        """The prompt's 16-bit samples."""
        self.choose(prompt.voice)
        self._library.espeak_SetParameter(_RATE, prompt.rate, 0)
        self._library.espeak_SetParameter(_PITCH, prompt.pitch, 0)
        self._chunks.clear()
        text = prompt.text.encode() + b"\0"
        status = self._library.espeak_Synth(
            text, ctypes.c_size_t(len(text)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if status != 0:
            raise RuntimeError(f"eSpeak NG ended with status {status} on {prompt}")
        return b"".join(self._chunks)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0  # go on


def _speak(library: str, data: str, orders: Iterable[bytes], answers: BinaryIO) -> None:
    """The child process: one answer per order."""
    prompts = [Prompt(**json.loads(order)) for order in orders]
    try:
        espeak = _Espeak(library, data)
        try:
            for voice in sorted({prompt.voice for prompt in prompts}):
                espeak.choose(voice)
            for prompt in prompts:
                samples = espeak.say(prompt)
                answers.write(_COUNT.pack(len(samples) // 2) + samples)
        finally:
            espeak.close()
    except InputError as error:
        sentence = str(error).encode()
        answers.write(_COUNT.pack(-len(sentence)) + sentence)
    answers.flush()


if __name__ == "__main__":
    _speak(sys.argv[1], sys.argv[2], sys.stdin.buffer, sys.stdout.buffer)
