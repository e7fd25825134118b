"""The synthetic corpus is whole or absent, the same each time, and what it says it is."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from threading import Barrier
from typing import Any

import espeakng_loader
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy import signal

from study.data import synthetic
from study.data.acoustics import NOISES
from study.data.corpus import SPLITS, Corpus, Utterance
from study.data.espeak import Prompt, synthesise
from study.data.synthetic import PATTERNS, VOICES, SyntheticCorpus, sentences
from study.errors import InputError

TINY = SyntheticCorpus(train_utterances=6, dev_utterances=3, test_utterances=3)
ADAPTER = TypeAdapter(SyntheticCorpus)


def samples(utterance: Utterance) -> NDArray[np.int16]:
    audio: NDArray[np.int16] = soundfile.read(utterance.audio, dtype="int16")[0]
    return audio


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds `TINY`."""
    folder = tmp_path_factory.mktemp("cache")
    TINY.read(folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"train_utterances": 0}, "train_utterances"),
        ({"dev_utterances": 0}, "dev_utterances"),
        ({"test_utterances": -3}, "test_utterances"),
        ({"seed": -1}, "seed"),
        ({"reverberant_share": 1.5}, "reverberant_share"),
        ({"lowest_snr": float("nan")}, "lowest_snr"),
        ({"lowest_snr": 20, "highest_snr": 10}, "is above highest_snr"),
        ({"utterances": 10}, "utterances"),
        ({"kind": "manifest"}, "kind"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        ADAPTER.validate_python(settings)


def test_without_espeak_it_says_so_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "gone.so"))
    with pytest.raises(InputError, match="cannot be loaded"):
        TINY.read(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_voice_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(VOICES, "test", ("en-us+nobody",))
    with pytest.raises(InputError, match=re.escape("no voice 'en-us+nobody'")):
        TINY.read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written into"):
        TINY.read(tmp_path / "file")


def test_an_interruption_leaves_no_half_corpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write, written = soundfile.write, []

    def interrupted(*args: Any, **options: Any) -> None:
        written.append(args)
        if len(written) == 5:
            raise KeyboardInterrupt
        write(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            TINY.read(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert [len(utterances) for utterances in TINY.read(tmp_path).values()] == [6, 3, 3]


def test_a_damaged_corpus_says_what_to_delete(tmp_path: Path) -> None:
    TINY.read(tmp_path)
    (folder,) = tmp_path.iterdir()
    with (folder / "corpus.jsonl").open("r+") as file:
        file.truncate(500)
    with pytest.raises(InputError, match="delete this folder"):
        TINY.read(tmp_path)


def test_two_at_once_end_with_one_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generate, both = synthetic._generate, Barrier(2)

    def together(corpus: SyntheticCorpus, folder: Path) -> None:
        both.wait(timeout=60)  # neither has begun to find the other's corpus
        generate(corpus, folder)
        both.wait(timeout=60)

    monkeypatch.setattr(synthetic, "_generate", together)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(TINY.read, [tmp_path, tmp_path])
    assert first == second
    assert len(list(tmp_path.iterdir())) == 1
    assert all(samples(utterance).size for split in SPLITS for utterance in first[split])


def test_the_second_time_it_is_only_read(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = TINY.read(cache)

    def fail(*_: object) -> None:
        raise AssertionError("synthesised again")

    monkeypatch.setattr(synthetic, "synthesise", fail)
    assert TINY.read(cache) == first
    assert replace(TINY, max_bad_utterances=3).read(cache) == first


def test_utterances_are_complete(cache: Path) -> None:
    corpus: Corpus = TINY
    splits = corpus.read(cache)
    assert tuple(splits) == SPLITS
    everything = [utterance for split in SPLITS for utterance in splits[split]]
    assert len({utterance.id for utterance in everything}) == len(everything) == 12
    for number, utterance in enumerate(everything, 1):
        assert utterance.source == f"corpus.jsonl:{number}"
        assert re.fullmatch(r"[a-z]+( [a-z]+)+", utterance.text)
        info = soundfile.info(utterance.audio)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert info.frames / 16_000 == utterance.duration
        audio = samples(utterance) / 32768
        assert 20 * np.log10(np.sqrt(np.mean(audio**2))) == pytest.approx(-26, abs=0.1)
        assert np.abs(audio).max() < 0.96
        assert 0.8 < info.frames / 16_000 < 3.0


def test_the_same_settings_give_the_same_bytes_in_another_process(
    cache: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, pathlib; from study.data.synthetic import SyntheticCorpus as C;"
        "C(train_utterances=6, dev_utterances=3, test_utterances=3)"
        ".read(pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment)
    here, there = ({p.relative_to(c): p for p in c.rglob("*.*")} for c in (cache, tmp_path))
    assert len(here) == 12 + 2
    assert here.keys() == there.keys()
    for name in here:
        assert here[name].read_bytes() == there[name].read_bytes(), name


def test_more_training_changes_nothing_else(cache: Path, tmp_path: Path) -> None:
    small, large = TINY.read(cache), replace(TINY, train_utterances=9).read(tmp_path)
    for split in SPLITS:
        for a, b in zip(small[split], large[split], strict=False):
            assert (a.id, a.text, a.speaker) == (b.id, b.text, b.speaker)
            np.testing.assert_array_equal(samples(a), samples(b))


def test_another_seed_is_another_corpus(cache: Path, tmp_path: Path) -> None:
    one, other = TINY.read(cache), replace(TINY, seed=1).read(tmp_path)
    assert [u.text for u in one["train"]] != [u.text for u in other["train"]]


def test_no_speaker_and_no_sentence_is_in_two_splits() -> None:
    for seed in (0, 1):
        dealt = sentences(seed)
        texts = {split: {t for ts in dealt[split].values() for t in ts} for split in SPLITS}
        for a, b in combinations(SPLITS, 2):
            assert not texts[a] & texts[b]
        words = {split: {w for t in texts[split] for w in t.split()} for split in SPLITS}
        assert words["dev"] <= words["train"] >= words["test"]
        assert len(words["train"]) == 63
    speakers = [voice.partition("+")[2] for voices in VOICES.values() for voice in voices]
    assert max(Counter(speakers).values()) == 1
    assert [len(VOICES[split]) for split in SPLITS] == [20, 8, 8]


def test_more_utterances_than_sentences_still_keep_the_splits_apart(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(dev_utterances=6000)
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for recording in synthetic._recordings(corpus):
        texts[recording.split].append(recording.prompt.text)
    assert [len(texts[split]) for split in SPLITS] == [2000, 6000, 400]
    assert len(set(texts["dev"])) < 6000
    assert not set(texts["train"]) & set(texts["dev"])
    assert not set(texts["dev"]) & set(texts["test"])


def test_the_default_corpus_is_balanced() -> None:
    recordings = list(synthetic._recordings(SyntheticCorpus()))
    assert Counter(r.split for r in recordings) == {"train": 2000, "dev": 400, "test": 400}
    assert set(Counter(r.prompt.voice for r in recordings).values()) == {100, 50}
    texts = [r.prompt.text for r in recordings]
    assert len(set(texts)) == 2800
    assert 4.5 < np.mean([len(text.split()) for text in texts]) < 5.5
    kinds = Counter(r.noise for r in recordings)
    assert set(kinds) == set(NOISES)
    assert min(kinds.values()) > 600
    assert 0.45 < np.mean([r.decay is not None for r in recordings]) < 0.55
    snrs = [r.snr for r in recordings]
    assert (round(min(snrs)), round(max(snrs))) == (8, 30)
    assert {r.prompt.rate for r in recordings} == set(range(130, 181))
    assert {r.prompt.pitch for r in recordings} == set(range(25, 76))


def test_settings_of_the_acoustics_act(cache: Path, tmp_path: Path) -> None:
    dry = replace(TINY, lowest_snr=100.0, highest_snr=100.0, reverberant_share=0.0)
    noisy = replace(dry, lowest_snr=8.0, highest_snr=8.0)
    wet = replace(dry, reverberant_share=1.0)
    clean = dry.read(tmp_path)
    for a, b in zip(clean["train"], noisy.read(tmp_path)["train"], strict=True):
        speech, heard = samples(a).astype(float), samples(b).astype(float)
        # Noise and speech are not quite uncorrelated, hence the tolerance.
        noise = heard - speech * (heard @ speech) / (speech @ speech)
        power = (heard @ heard - noise @ noise) / (noise @ noise)
        assert 10 * np.log10(power) == pytest.approx(8.0, abs=0.5)
    for a, b in zip(clean["train"], wet.read(tmp_path)["train"], strict=True):
        assert not np.allclose(samples(a), samples(b), atol=100)
    shares = {
        bool(line["reverberation"])
        for folder in tmp_path.iterdir()
        if '"reverberant_share": 1.0' in (folder / "settings.json").read_text()
        for line in manifest(folder)
    }
    assert shares == {True}


def test_every_voice_differs_and_none_is_silent() -> None:
    voices = [voice for split in VOICES.values() for voice in split]
    text = "turn off the yellow kitchen radio at seven"
    envelopes = []
    for speech in synthesise(Prompt(text=text, voice=voice) for voice in voices):
        assert np.sqrt(np.mean(speech**2)) > 0.02
        power = signal.welch(speech, 16_000, nperseg=512)[1][1:]
        bands = np.array([10 * np.log10(band.mean()) for band in np.array_split(power, 32)])
        envelopes.append(bands - bands.mean())
    distances = [np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(envelopes, 2)]
    assert min(distances) > 1.0  # dB


def test_every_pattern_reads_like_a_command() -> None:
    dealt = sentences(0)["train"]
    assert dealt.keys() == PATTERNS.keys()
    assert re.match(r"(turn|switch) (on|off) ", dealt["switch"][0])
    assert re.match(r"(set|keep) \w+ \w+ at \w+", dealt["set"][0])
    assert re.match(r"(call|meet|email) \w+ \w+day at \w+", dealt["call"][0])
    assert re.match(r"(open|close|lock) \w+", dealt["open"][0])
