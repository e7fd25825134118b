"""From a manifest to usable utterances: first everything that can be wrong with a corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from study.data import features
from study.data.audio import read_audio
from study.data.config import FeatureConfig
from study.data.corpus import SPLITS, Utterance
from study.data.tokens import CharacterTokenizer, open_tokenizer
from study.errors import InputError
from tests.speech import (
    open_corpus,
    read_manifest,
    write_corpus,
    write_manifest,
    write_tone,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def _change(folder: Path, split: str, number: int, **changes: Any) -> None:
    file = folder / f"{split}.jsonl"
    entries = read_manifest(file)
    entries[number].update(changes)
    write_manifest(file, entries)


def _refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        open_corpus(folder, **options)
    return str(error.value)


def test_missing_manifests_are_all_named(folder: Path) -> None:
    for split in ("dev", "test"):
        (folder / f"{split}.jsonl").unlink()
    refusal = _refusal(folder)
    assert "dev.jsonl" in refusal
    assert "test.jsonl" in refusal
    assert "set corpus.folder" in refusal


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"id": "x"}', "the key audio and text is missing"),
        ('{"id": 7, "audio": "a.wav", "text": "red"}', "id is 7, not a string"),
        ('{"id": "x", "audio": "a.wav", "text": null}', "text is None, not a string"),
        ('{"id": "x", "audio": "a.wav", "text": "red", "duration": -1}', "duration is -1"),
        ('{"id": "dev-0", "audio": "a.wav", "text": "red"}', "id 'dev-0' stands already"),
    ],
)
def test_lines_that_are_not_utterances_are_named(folder: Path, line: str, complaint: str) -> None:
    with (folder / "dev.jsonl").open("a") as file:
        file.write(line + "\n")
    refusal = _refusal(folder)
    assert complaint in refusal
    assert "dev.jsonl:3" in refusal


def test_a_manifest_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "dev.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as UTF-8" in _refusal(folder)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_utterances_is_refused(folder: Path, split: str) -> None:
    (folder / f"{split}.jsonl").write_text("\n")
    assert f"the split '{split}' has no utterances" in _refusal(folder)


def test_a_missing_audio_file_is_refused_with_its_place(folder: Path) -> None:
    (folder / "audio" / "train-1.wav").unlink()
    refusal = _refusal(folder)
    assert "1 of 8 utterances cannot be used" in refusal
    assert "train.jsonl:2" in refusal
    assert "there is no audio file" in refusal


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"not audio at all"])
def test_unreadable_audio_is_refused(folder: Path, content: bytes) -> None:
    (folder / "audio" / "dev-0.wav").write_bytes(content)
    refusal = _refusal(folder)
    assert "dev.jsonl:1" in refusal
    assert "cannot be read" in refusal


def test_audio_without_samples_is_refused(folder: Path) -> None:
    soundfile.write(folder / "audio" / "dev-0.wav", np.zeros(0), 16000)
    assert "0.000 s long, shorter than a window" in _refusal(folder)


def test_an_utterance_too_short_for_the_front_block_is_refused(folder: Path) -> None:
    write_tone(folder / "audio" / "dev-0.wav", 0.05)
    assert "too short: 6 frames, and the front block needs 7" in _refusal(folder)


def test_samples_that_are_not_numbers_are_refused(folder: Path) -> None:
    samples = np.full(16000, np.nan, dtype=np.float32)
    soundfile.write(folder / "audio" / "dev-0.wav", samples, 16000, subtype="FLOAT")
    assert "not finite" in _refusal(folder)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_transcript_is_refused(folder: Path, text: str) -> None:
    _change(folder, "train", 2, text=text)
    refusal = _refusal(folder)
    assert "train.jsonl:3: 'train-2': the transcript is empty" in refusal


def test_a_transcript_too_long_for_ctc_is_refused(folder: Path) -> None:
    _change(folder, "train", 0, text="red " * 30)
    refusal = _refusal(folder)
    assert "too long for CTC: it needs 119 frames" in refusal
    assert "give 24" in refusal


def test_a_few_bad_utterances_are_left_out_and_named(folder: Path) -> None:
    (folder / "audio" / "train-1.wav").unlink()
    for allowed in (1, 0.2):
        dataset = open_corpus(folder, bad=allowed)
        assert [u.id for u in dataset.splits["train"].utterances] == [
            "train-0",
            "train-2",
            "train-3",
        ]
        warning, _ = dataset.warnings  # the other is what the splits share
        assert "1 of 8 utterances cannot be used and are left out" in warning
        assert "train-1" in warning


def test_many_bad_utterances_are_counted_and_the_first_named(folder: Path) -> None:
    entries = read_manifest(folder / "train.jsonl")
    entries += [{**entries[0], "id": f"more-{n}", "text": ""} for n in range(30)]
    write_manifest(folder / "train.jsonl", entries)
    refusal = _refusal(folder)
    assert "30 of 38 utterances" in refusal
    assert "more-9" in refusal
    assert "more-10" not in refusal
    assert "and 20 more" in refusal


def test_a_split_whose_utterances_are_all_bad_is_refused(folder: Path) -> None:
    for number in range(2):
        (folder / "audio" / f"dev-{number}.wav").unlink()
    assert "the split 'dev' has no usable utterances" in _refusal(folder, bad=5)


def test_what_splits_share_is_a_warning(folder: Path) -> None:
    (warning,) = open_corpus(folder).warnings
    assert warning.startswith("splits overlap, so that error rates look better than they are:\n")
    assert "\n  train and dev share" in warning


def test_characters_that_train_lacks_are_reported_and_kept(folder: Path) -> None:
    _change(folder, "dev", 0, text="blau über")
    dataset = open_corpus(folder)
    warning, _ = dataset.warnings
    assert "1 transcripts of dev" in warning
    assert "'ü'" in warning
    assert dataset.splits["dev"].utterances[0].text == "blau über"  # scored as it stands


def test_tokens_return_the_transcripts(folder: Path) -> None:
    dataset = open_corpus(folder)
    for split in dataset.splits.values():
        for utterance, tokens in zip(split.utterances, split.tokens, strict=True):
            assert dataset.tokenizer.decode(tokens) == utterance.text
            assert max(tokens) < dataset.tokenizer.vocabulary - 1  # the last is <sos/eos>


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_audio_of_any_kind_is_heard_the_same(
    tmp_path: Path, rate: int, channels: int, ending: str
) -> None:
    folder = write_corpus(tmp_path / "corpus")
    time = np.arange(rate) / rate
    samples = np.repeat(0.3 * np.sin(2 * np.pi * 440 * time)[:, None], channels, axis=1)
    soundfile.write(folder / f"audio/dev-0.{ending}", samples, rate)
    _change(folder, "dev", 0, audio=f"audio/dev-0.{ending}")
    split = open_corpus(folder).splits["dev"]
    features = split.store.of(split.numbers[0]).astype(np.float32)
    assert abs(len(features) - 101) <= 12  # lossy formats pad
    middle = features[30:70].mean(axis=0)
    assert middle.argmax() == 2  # 440 Hz is 6.6 mel, and band n of 20 is centred on 2.15 (n + 1)
    assert middle.max() == pytest.approx(2.34, abs=0.1)


def test_features_agree_with_a_plain_statement_of_their_definition(folder: Path) -> None:
    dataset = open_corpus(folder, mels=40)
    split = dataset.splits["train"]
    samples, _ = soundfile.read(split.utterances[0].audio)
    window, hop, size = 400, 160, 512
    padded = np.pad(samples, size // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    hann = np.pad(hann, (size - window) // 2)
    frames = np.stack([padded[i * hop : i * hop + size] * hann for i in range(101)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    expected = np.log(np.maximum(power @ _slaney_filters(40, size), 1e-10))
    np.testing.assert_allclose(split.store.of(0), expected, atol=0.02)  # stored in float16


def _slaney_filters(mels: int, size: int) -> Any:
    """Slaney's auditory toolbox: linear below 1 kHz, logarithmic above, triangles of unit area."""

    def mel(hertz: Any) -> Any:
        hertz = np.asarray(hertz, dtype=float)
        above = 15 + np.log(np.maximum(hertz, 1e-9) / 1000) / (np.log(6.4) / 27)
        return np.where(hertz < 1000, hertz * 3 / 200, above)

    def hertz(mel: Any) -> Any:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    edges = hertz(np.linspace(mel(0), mel(8000), mels + 2))
    bins = np.fft.rfftfreq(size, 1 / 16000)
    filters = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        filters.append(np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low))
    return np.array(filters).T


def test_normalisation_is_over_the_training_split_alone(folder: Path) -> None:
    dataset = open_corpus(folder)
    split = dataset.splits["train"]
    frames = np.concatenate([split.store.of(n) for n in split.numbers]).astype(np.float64)
    mean, std = dataset.normalisation
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, frames.std(axis=0), rtol=1e-4)


def test_features_are_computed_once_and_anew_when_audio_or_settings_change(folder: Path) -> None:
    def stores() -> set[str]:
        return {path.name for path in (folder / "cache" / "features").iterdir()}

    open_corpus(folder)
    first = stores()
    open_corpus(folder)
    assert stores() == first
    open_corpus(folder, mels=24)
    assert len(stores()) == 2
    write_tone(folder / "audio" / "dev-1.wav", 1.5)
    open_corpus(folder)
    assert len(stores()) == 3


def _cut(content: bytes) -> bytes:
    return content[: len(content) * 3 // 4]


def _flip(content: bytes) -> bytes:
    """One bit is another, in the middle of the file."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("name", ["features.f16", "index.npz"])
@pytest.mark.parametrize("damage", [_cut, _flip, lambda content: b"", lambda content: b"text" * 99])
def test_cached_features_that_are_damaged_are_computed_again_and_it_is_said(
    folder: Path, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    before = open_corpus(folder).splits["dev"].store.of(4).copy()
    (file,) = (folder / "cache").rglob(name)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    np.testing.assert_array_equal(open_corpus(folder).splits["dev"].store.of(4), before)
    assert "the cached features are damaged" in caplog.text
    assert file.read_bytes() == whole
    caplog.clear()
    open_corpus(folder)
    assert not caplog.records


def test_the_fingerprint_follows_audio_text_and_speaker(folder: Path) -> None:
    seen = {open_corpus(folder).fingerprint}
    _change(folder, "train", 0, text="red light off")
    seen.add(open_corpus(folder).fingerprint)
    _change(folder, "train", 0, speaker="somebody")
    seen.add(open_corpus(folder).fingerprint)
    write_tone(folder / "audio" / "test-0.wav", 1.1)
    seen.add(open_corpus(folder).fingerprint)
    assert len(seen) == 4


def test_the_summary_counts_what_is_usable(folder: Path) -> None:
    summary = open_corpus(folder).splits["train"].summary()
    assert summary == {
        "utterances": 4,
        "hours": pytest.approx(4 * 101 * 0.01 / 3600),
        "longest": pytest.approx(1.01),
        "speakers": 4,
        "words": 9,
    }


def test_pieces_are_learnt_and_return_the_transcripts(folder: Path) -> None:
    dataset = open_corpus(folder, kind="bpe", size=16)
    assert dataset.tokenizer.vocabulary == 16 + 3
    texts = [u.text for u in dataset.splits["train"].utterances]
    tokens = dataset.splits["train"].tokens
    assert [dataset.tokenizer.decode(t) for t in tokens] == texts
    assert sum(map(len, tokens)) < sum(map(len, texts))
    assert dataset.tokenizer.decode([1]) == "<unk>"


@pytest.mark.parametrize(
    ("tokens", "names"),
    [({}, ["<space>", "b", "d"]), ({"kind": "bpe", "size": 16}, ["re", "▁o", "▁"])],
    ids=["character", "bpe"],
)
def test_a_tokenizer_that_was_saved_is_the_same(
    folder: Path, tmp_path: Path, tokens: dict[str, Any], names: list[str]
) -> None:
    learnt = open_corpus(folder, **tokens).tokenizer
    learnt.save(tmp_path / "saved")
    opened = open_tokenizer(tmp_path / "saved")
    assert type(opened) is type(learnt)
    assert opened.names == learnt.names
    assert len(opened.names) == opened.vocabulary
    assert [*opened.names[:2], opened.names[-1]] == ["<blank>", "<unk>", "<sos/eos>"]
    assert opened.names[2:5] == names
    assert opened.encode("red light ö") == learnt.encode("red light ö")
    everything = list(range(opened.vocabulary))
    assert opened.decode(everything) == learnt.decode(everything)


def test_characters_that_end_lines_elsewhere_are_tokens_too(tmp_path: Path) -> None:
    CharacterTokenizer("\r \x85\u2028").save(tmp_path)
    assert open_tokenizer(tmp_path).encode("\u2028 \r\x85") == [5, 3, 2, 4]


@pytest.mark.parametrize("size", [8, 5000])
def test_a_number_of_pieces_that_cannot_be_learnt_is_refused(folder: Path, size: int) -> None:
    refusal = _refusal(folder, kind="bpe", size=size)
    assert f"tokens.size: {size} pieces cannot be learnt" in refusal
    assert "different characters" in refusal


def test_the_defaults_are_the_documented_ones() -> None:
    assert FeatureConfig() == FeatureConfig(mels=80, sample_rate=16000, window=0.025, hop=0.01)


def test_audio_that_can_be_read_by_now_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer library reads a format that was foreign to the one before it."""

    def foreign(utterance: Utterance) -> Any:
        if utterance.id == "train-1":
            return "the audio file cannot be read (Format not recognised)"
        return read_audio(utterance)

    monkeypatch.setattr(features, "read_audio", foreign)
    fewer = len(open_corpus(folder, bad=1.0).splits["train"])
    monkeypatch.undo()
    assert len(open_corpus(folder, bad=1.0).splits["train"]) == fewer + 1
    assert "can be by now" in caplog.text
