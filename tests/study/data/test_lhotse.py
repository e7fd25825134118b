"""Lhotse: manifests that are wrong, and those that Lhotse writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from study.data.audio import read_audio
from tests.study.data import layouts
from tests.study.data.layouts import corpus_of, open_corpus, refusal_of

WHOLE = layouts.recording("w", "audio/dev.wav", 1.0)


LHOTSE = [
    ({"id": "x"}, "is no entry of a Lhotse manifest"),
    ([], "not a JSON object"),
    ({**layouts.cut("x", WHOLE, 0, 1, "a"), "type": "Other"}, "is no entry of a Lhotse manifest"),
    (WHOLE, "the split 'dev' has no utterances"),
    (layouts.cut("x", WHOLE, 0, 0, "a"), "duration"),
    (layouts.cut("x", WHOLE, -1, 1, "a"), "start must be 0 or greater"),
    (layouts.cut("x", WHOLE, 5, 1, "a"), "begins at 5 s"),
    (layouts.cut("x", WHOLE, 0.5, 9, "a"), "ends at 9.5 s"),
    (layouts.cut("x", WHOLE, 0, 1, " "), "the transcript is empty"),
    ({**layouts.cut("x", WHOLE, 0, 1, "a"), "supervisions": []}, "has 0 supervisions"),
    ({**layouts.cut("x", WHOLE, 0, 1, "a"), "id": 7}, "id is 7, not a string"),
    ({**layouts.cut("x", WHOLE, 0, 1, "a"), "channel": 1}, "is no entry of a Lhotse manifest"),
    (layouts.cut("x", {**WHOLE, "duration": 9.0}, 0, 1, "a"), "mismatched declared duration"),
    (layouts.cut("x", {**WHOLE, "transforms": [{"name": "Speed", "kwargs": {"factor": 0.9}}]}, 0, 1, "a"), "recording with transforms"),
    (layouts.cut("x", layouts.recording("w", "/data/a.wav", 1.0), 0, 1, "a"), "the audio /data/a.wav lies outside"),
    (layouts.cut("x", layouts.recording("w", "../a.wav", 1.0), 0, 1, "a"), "the audio ../a.wav lies outside"),
    (layouts.cut("x", {**WHOLE, "sources": [{"type": "command", "channels": [0], "source": "touch run"}]}, 0, 1, "a"), "audio of the type 'command'"),
    (layouts.cut("x", {**WHOLE, "sources": [{"type": "url", "channels": [0], "source": "http://localhost/a.wav"}]}, 0, 1, "a"), "audio of the type 'url'"),
    (layouts.cut("x", {**WHOLE, "sources": WHOLE["sources"] * 2}, 0, 1, "a"), "has 2 audio sources"),
    (layouts.supervision("x", "none", 0, 1, "a"), "the recording 'none' is in none of corpus.dev"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "complaint"), LHOTSE)
def test_what_is_wrong_with_a_lhotse_manifest_is_said(
    tmp_path: Path, entry: object, complaint: str
) -> None:
    folder = layouts.write_lhotse(tmp_path / "corpus")
    layouts.write_json_lines(folder / "cuts_dev.jsonl.gz", [entry])
    refusal = refusal_of(corpus_of("lhotse", folder), tmp_path / "cache")
    assert complaint in refusal
    if "no utterances" not in complaint:
        assert "cuts_dev.jsonl.gz:1: " in refusal


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    folder = layouts.write_lhotse(tmp_path / "corpus")
    content = (folder / "cuts_dev.jsonl.gz").read_bytes()
    for damaged in (content[:-20], b"plain text", content[:30] + b"\0\0\0\0" + content[34:]):
        (folder / "cuts_dev.jsonl.gz").write_bytes(damaged)
        refusal = refusal_of(corpus_of("lhotse", folder), tmp_path / "cache")
        assert "cuts_dev.jsonl.gz: cannot be read" in refusal


def test_without_lhotse_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    folder = layouts.write_lhotse(tmp_path / "corpus")
    (tmp_path / "broken" / "lhotse").mkdir(parents=True)
    (tmp_path / "broken" / "lhotse" / "__init__.py").write_text("raise ImportError('not here')")
    script = (
        "from pathlib import Path; from study.data.lhotse import LhotseCorpus\n"
        f"LhotseCorpus(folder=Path({str(folder)!r})).read(Path())"
    )
    paths = os.pathsep.join([str(tmp_path / "broken"), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        'InputError: corpus.kind: reading Lhotse manifests needs Lhotse: run pip install "conformer-study[lhotse]"'
        in done.stderr
    )


def test_a_channel_that_a_file_has_not_is_said(tmp_path: Path) -> None:
    folder = layouts.write_lhotse(tmp_path / "corpus")
    both = layouts.recording("s", "audio/dev.wav", 1.0, channels=2)  # it has one
    second = layouts.cut("r", both, 0.0, 1.0, "a")
    second["channel"] = second["supervisions"][0]["channel"] = 1
    layouts.write_json_lines(folder / "cuts_dev.jsonl.gz", [second])
    refusal = refusal_of(corpus_of("lhotse", folder), tmp_path / "cache")
    assert "dev.wav has no channel 1, only 1, counted from 0" in refusal


def test_lhotse_channels_are_read_alone_or_together(tmp_path: Path) -> None:
    folder = layouts.write_lhotse(tmp_path / "corpus")
    layouts.write_stereo(folder / "audio" / "stereo.wav")
    both = layouts.recording("s", "audio/stereo.wav", 1.0, channels=2)
    left, right, mixed = (layouts.cut(name, both, 0.0, 1.0, "a") for name in ("l", "r", "m"))
    right["channel"] = right["supervisions"][0]["channel"] = 1
    mixed |= {"type": "MultiCut", "channel": [0, 1]}
    mixed["supervisions"][0]["channel"] = [0, 1]
    layouts.write_json_lines(folder / "cuts.jsonl", [left, right, mixed])
    corpus = corpus_of("lhotse", folder, train=["cuts.jsonl"])
    split = open_corpus(corpus, tmp_path / "cache").splits["train"]
    frames = [split.store.of(n)[50] for n in range(3)]
    low, high = 2, 10  # the bands of 440 and 1760 Hz, which are 6.6 and 23.2 mel, see test_dataset
    assert [frame[low] > -5 for frame in frames] == [True, False, True]
    assert [frame[high] > -5 for frame in frames] == [False, True, True]


def test_what_lhotse_writes_is_read(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    folder = layouts.write_lhotse(tmp_path / "corpus")
    source = lhotse.Recording.from_file(
        folder / "audio" / "long.wav", recording_id="long", relative_path_depth=2
    )
    supervisions = [
        lhotse.SupervisionSegment(
            id=name, recording_id="long", start=start, duration=1.0, text=name, speaker="carl"
        )
        for name, start in (("first", 0.25), ("second", 2.5))
    ]
    cuts = lhotse.CutSet.from_manifests(
        recordings=lhotse.RecordingSet.from_recordings([source]),
        supervisions=lhotse.SupervisionSet.from_segments(supervisions),
    )
    cuts.to_file(folder / "whole.jsonl.gz")
    refusal = refusal_of(corpus_of("lhotse", folder, train=["whole.jsonl.gz"]), tmp_path / "cache")
    assert "whole.jsonl.gz:1: has 2 supervisions, and an utterance one" in refusal
    cuts.trim_to_supervisions().to_file(folder / "trimmed.jsonl.gz")
    train = corpus_of("lhotse", folder, train=["trimmed.jsonl.gz"]).read(tmp_path)["train"]
    assert [(u.text, u.start, u.end, u.speaker) for u in train] == [
        ("first", 0.25, 1.25, "carl"),
        ("second", 2.5, 3.5, "carl"),
    ]
    heard = read_audio(train[1])
    assert not isinstance(heard, str)
    expected, _ = soundfile.read(folder / "audio" / "long.wav", start=40000, stop=56000)
    np.testing.assert_allclose(heard[0], expected, atol=1e-6)
