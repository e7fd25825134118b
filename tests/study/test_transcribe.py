"""`transcribe`: what a network learnt by heart is heard again, however the audio comes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import signal

from study.config import StudyConfig
from study.config_file import dump
from tests.command_line import CommandLine
from tests.study.spoken_study import TEXTS, commands

Audio = NDArray[np.float64]
RATE = 16000


@pytest.fixture(scope="module")
def config(spoken_study: StudyConfig) -> StudyConfig:
    return spoken_study


@pytest.fixture(scope="module")
def spoken(config: StudyConfig) -> list[Audio]:
    """The four commands, at 16 kHz."""
    return [soundfile.read(audio)[0] for audio in commands(config)]


@pytest.fixture
def transcribe(
    config: StudyConfig, tmp_path: Path, command_line: CommandLine
) -> Callable[..., tuple[list[str], list[str]]]:
    """Runs the command, and gives the lines of its stdout and of its stderr."""
    file = tmp_path / "spoken.yaml"
    file.write_text(dump(config))

    def run(*arguments: object, code: int = 0) -> tuple[list[str], list[str]]:
        said = command_line("transcribe", *arguments, "--study", file)
        assert said.code == code, said.errors
        return said.output.splitlines(), said.errors.splitlines()

    return run


Transcribe = Callable[..., tuple[list[str], list[str]]]


# ── What cannot be transcribed ───────────────────────────────────────────────────────────


def test_all_faults_are_told_at_once_and_nothing_is_transcribed(
    transcribe: Transcribe, spoken: list[Audio], tmp_path: Path
) -> None:
    good, empty, silent = (tmp_path / name for name in ("a.wav", "empty.wav", "zero.wav"))
    short, text, cut = (tmp_path / name for name in ("short.wav", "text.wav", "header.flac"))
    soundfile.write(good, spoken[0], RATE)
    empty.touch()
    soundfile.write(silent, spoken[0][:0], RATE)
    soundfile.write(short, spoken[0][:100], RATE)
    text.write_text("these are no samples at all, they are words")
    soundfile.write(cut, spoken[0], RATE)
    cut.write_bytes(cut.read_bytes()[:20])
    missing = tmp_path / "missing.wav"
    output, said = transcribe(good, empty, silent, short, text, cut, missing, tmp_path, code=2)
    assert output == []
    told = dict(line.removeprefix("error: ").split(": ", 1) for line in said)
    assert told[str(empty)] == "is empty"
    assert told[str(silent)] == "holds 0 s of audio"
    assert told[str(short)] == "holds 0.006 s of audio, and the network needs 0.07 s"
    assert told[str(text)].startswith("is not audio that can be read (")
    assert told[str(cut)].startswith("is not audio that can be read (")
    assert told[str(missing)] == "there is no such file"
    assert told[str(tmp_path)] == "is a folder, and not an audio file"
    assert len(told) == 7 and str(good) not in told


def test_a_file_that_breaks_off_is_told_after_the_others_are_written(
    transcribe: Transcribe, spoken: list[Audio], tmp_path: Path
) -> None:
    good, cut, infinite = (tmp_path / name for name in ("good.wav", "cut.flac", "infinite.wav"))
    soundfile.write(good, spoken[1], RATE)
    soundfile.write(cut, np.concatenate(spoken), RATE)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    samples = spoken[0].copy()
    samples[500] = np.nan
    soundfile.write(infinite, samples, RATE, subtype="FLOAT")
    output, said = transcribe(cut, infinite, good, "--greedy", code=2)
    assert f"{good}\t{TEXTS[1]}" in output
    faults = [line for line in said if line.startswith("error: ")]
    assert len(faults) == 2
    assert str(cut) in faults[0] and "cannot be read beyond" in faults[0] + "is cut off"
    assert faults[1] == f"error: {infinite}: has samples that are not finite numbers"


def test_a_trial_that_does_not_exist_and_a_study_that_has_not_begun_are_refused(
    transcribe: Transcribe, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    _, said = transcribe(tmp_path / "a.wav", "--trial", 7, code=2)
    assert "has no trial 7" in said[-1]
    _, said = transcribe(tmp_path / "a.wav", "-o", "name=other", code=2)
    assert "'other' has not begun" in said[-1]


# ── What can ─────────────────────────────────────────────────────────────────────────────


def test_a_file_of_any_rate_channels_and_format_is_heard(
    transcribe: Transcribe, spoken: list[Audio], tmp_path: Path
) -> None:
    def resampled(number: int, rate: int) -> Audio:
        return np.asarray(signal.resample_poly(spoken[number], rate // 100, RATE // 100))

    files = {name: tmp_path / name for name in ("a.wav", "b.wav", "c.flac", "d.ogg")}
    soundfile.write(files["a.wav"], resampled(0, 8000), 8000)
    stereo = np.stack([1.5 * resampled(1, 44100), 0.5 * resampled(1, 44100)], axis=1)
    soundfile.write(files["b.wav"], 0.5 * stereo, 44100, subtype="PCM_24")
    soundfile.write(files["c.flac"], spoken[2], RATE)
    soundfile.write(files["d.ogg"], resampled(3, 48000), 48000)
    output, said = transcribe(*files.values())
    heard = dict(line.split("\t") for line in output)
    assert list(heard) == list(map(str, files.values()))  # in the order in which they were given
    assert heard[str(files["b.wav"])] == TEXTS[1]
    assert heard[str(files["c.flac"])] == TEXTS[2]
    assert heard[str(files["d.ogg"])] == TEXTS[3]
    assert heard[str(files["a.wav"])].split()[:2] == TEXTS[0].split()[:2]  # half the band is gone
    assert "1 file has 2 channels, which are averaged" in said
    assert any(line.startswith("1 file has 8000 Hz, resampled to the 16000 Hz") for line in said)
    assert "1 file has 44100 Hz, resampled to the 16000 Hz of the network" in said
    assert "real-time factor" in said[-1] and said[-1].endswith("beam 10")


def test_what_it_hears_is_what_training_heard(transcribe: Transcribe, config: StudyConfig) -> None:
    lines = (config.folder / "trials" / "0" / "hypotheses.jsonl").read_text().splitlines()
    expected = [json.loads(line)["hypothesis"] for line in lines]
    output, _ = transcribe(*commands(config), "--greedy", "--trial", 0)
    assert [line.split("\t")[1] for line in output] == expected == TEXTS


def test_a_long_file_is_cut_in_its_pauses_and_nothing_is_lost_or_doubled(
    transcribe: Transcribe, spoken: list[Audio], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    parts: list[Audio] = []
    for number in (0, 1, 2, 0, 2, 1, 0, 2):
        parts += [spoken[number], 1e-4 * rng.standard_normal(RATE // 5)]
    whole = np.concatenate(parts)
    soundfile.write(tmp_path / "long.wav", whole, RATE)
    (line,), said = transcribe(tmp_path / "long.wav", "--json", "--segments")
    found = json.loads(line)
    segments = found["segments"]
    longest = max(map(len, spoken)) / RATE
    assert len(segments) >= 8 and said[-1].startswith(f"{len(whole) / RATE:.1f} s of audio in ")
    assert found["seconds"] == pytest.approx(len(whole) / RATE, abs=1e-3)
    assert (segments[0]["start"], segments[-1]["end"]) == (0, found["seconds"])
    for before, after in itertools.pairwise(segments):
        assert before["end"] == after["start"]
        place = round(after["start"] * RATE)
        assert np.abs(whole[place - 160 : place + 160]).max() < 1e-3  # nobody speaks there
    assert all(s["end"] - s["start"] < longest + 0.02 for s in segments)

    # Cut by hand at those times, into files of their own, it reads the same.
    files = []
    for number, segment in enumerate(segments):
        begin, end = (round(segment[name] * RATE) for name in ("start", "end"))
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], whole[begin:end], RATE)
    apart, _ = transcribe(*files)
    assert [row.split("\t")[1] for row in apart] == [segment["text"] for segment in segments]
    assert found["text"] == " ".join(segment["text"] for segment in segments)
    assert segments[0]["text"].startswith("turn on the red")
    rows, _ = transcribe(tmp_path / "long.wav", "--segments")
    expected = [f"{s['start']:.2f}\t{s['end']:.2f}\t{s['text']}" for s in segments]
    assert [row.partition("\t")[2] for row in rows] == expected


def test_silence_says_nothing(transcribe: Transcribe, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(10 * RATE), RATE)
    output, _ = transcribe(tmp_path / "silence.wav")
    assert output == [f"{tmp_path / 'silence.wav'}\t"]
