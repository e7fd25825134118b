"""The synthesiser speaks the same samples each time, and says what is wrong when it cannot."""

import _ctypes
import os
import sys
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import pytest
from numpy.typing import NDArray

from study.data.acoustics import rms
from study.data.espeak import SAMPLE_RATE, Prompt, synthesise
from study.errors import InputError

PROMPTS = [
    Prompt(text="turn on the red lamp", voice="en-us+m1"),
    Prompt(text="meet anna monday at seven", voice="en-gb-scotland+f2", rate=150, pitch=70),
    Prompt(text="turn on the red lamp", voice="en-us+m1"),
]


def test_a_missing_library_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "gone.so"))
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        list(synthesise(PROMPTS))
    assert len(caught.value.faults) == 1
    assert "gone.so" in str(caught.value)


def test_missing_voices_are_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match="cannot read its voices"):
        list(synthesise(PROMPTS))


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader"):
        list(synthesise(PROMPTS))


@pytest.mark.parametrize("voice", ["atlantean", "atlantean+m1", "en-us+nobody", "en-us+"])
def test_an_unknown_voice_is_refused_before_anything_is_spoken(voice: str) -> None:
    # The library itself would go on with another voice.
    speech = synthesise([PROMPTS[0], Prompt(text="hello", voice=voice)])
    with pytest.raises(InputError, match="no voice") as caught:
        next(speech)
    assert repr(voice) in str(caught.value)


def test_a_library_that_is_none_ends_with_its_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: _ctypes.__file__)
    with pytest.raises(RuntimeError, match="espeak_Initialize"):
        list(synthesise(PROMPTS * 1000))  # more than fits a pipe that nobody reads


def test_no_prompts_no_speech() -> None:
    assert list(synthesise([])) == []


def test_the_same_prompts_give_the_same_samples() -> None:
    first, second = list(synthesise(PROMPTS)), list(synthesise(PROMPTS))
    assert len(first) == len(PROMPTS)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_speaks_at_the_rate_and_pitch_asked_for() -> None:
    def fundamental(speech: NDArray[np.float32]) -> float:
        spectrum = np.abs(np.fft.rfft(speech, 2 * speech.size)) ** 2
        correlation = np.fft.irfft(spectrum)
        shortest, longest = SAMPLE_RATE // 400, SAMPLE_RATE // 50
        lag = shortest + int(np.argmax(correlation[shortest:longest]))
        return SAMPLE_RATE / lag

    text, voice = "call maria monday at nine", "en-us+m3"
    slow, fast, low, high = synthesise(
        [
            Prompt(text=text, voice=voice, rate=150),
            Prompt(text=text, voice=voice, rate=210),
            Prompt(text=text, voice=voice, pitch=25),
            Prompt(text=text, voice=voice, pitch=75),
        ]
    )
    assert 1.2 < slow.size / fast.size < 1.6
    assert fundamental(low) * 1.2 < fundamental(high)
    for speech in (slow, fast, low, high):
        assert speech.dtype == np.float32
        assert 0.5 < speech.size / SAMPLE_RATE < 3.0
        assert rms(speech) > 0.01


def test_a_stopped_reader_leaves_no_process() -> None:
    speech: Any = synthesise(PROMPTS * 200)
    next(speech)
    process = speech.gi_frame.f_locals["process"]
    speech.close()
    assert process.poll() is not None


def test_it_speaks_from_a_very_deep_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = list(synthesise(PROMPTS))
    deep = tmp_path / ("deep" * 50) / "data"
    deep.parent.mkdir()
    deep.symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    assert len(os.fsencode(deep)) > 160
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep))
    for a, b in zip(expected, synthesise(PROMPTS), strict=True):
        np.testing.assert_array_equal(a, b)
