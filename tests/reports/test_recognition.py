"""What went wrong in recognition: who is shown, and whether everything is counted right."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import pytest

from reports.mistakes import mistakes_data, mistakes_panels
from reports.recognition import RANDOM, WORST, recognition_data
from reports.record import StudyRecord, read_study
from reports.style import inline_svg
from reports.transcripts import Utterance
from tests.reports.simulated import (
    ANCHORS,
    SimulatedStudy,
    draw,
    simulated_trial,
    write_transcripts,
)


def _utterances(*texts: tuple[str, str], speakers: Sequence[str] = ()) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{place}",
            speaker=speakers[place] if speakers else None,
            reference=reference,
            hypothesis=hypothesis,
            errors=0,
            words=len(reference.split()),
        )
        for place, (reference, hypothesis) in enumerate(texts)
    ]


def _study(empty: SimulatedStudy, *, finalists: Sequence[str] = ()) -> StudyRecord:
    """Two anchors and a better trial, each once more as a finalist where it is named."""
    rng = random.Random(0)
    kinds: list[dict[str, Any]] = [
        {"params": params, "anchor": name, "wer": 0.3} for name, params in ANCHORS.items()
    ]
    kinds.append({"params": draw(rng), "wer": 0.1})
    for label in finalists:
        anchor = label if label in ANCHORS else None
        wer = 0.25 if anchor else 0.12
        kinds.append({"params": draw(rng), "wer": wer, "phase": "finalist", "anchor": anchor,
                      "finalist": label})  # fmt: skip
    empty.study.add_trials([simulated_trial(kind.pop("params"), rng, **kind) for kind in kinds])
    return read_study(empty.storage, empty.name)


def _write(folder: Path, trial: int, name: str, lines: list[dict[str, Any]]) -> None:
    place = folder / str(trial)
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def test_what_is_missing_is_said(empty_study: SimulatedStudy) -> None:
    nothing = read_study(empty_study.storage, empty_study.name)
    assert "no finished trial" in recognition_data(nothing, empty_study.trials_folder).refusal
    record, folder = _study(empty_study), empty_study.trials_folder
    assert "folder was not given" in recognition_data(record, None).refusal
    assert "Trial 2 left no transcripts" in recognition_data(record, folder).refusal
    _write(folder, 2, "hypotheses.jsonl", [{"id": 3}])
    assert "hold no utterance that can be read" in recognition_data(record, folder).refusal


def test_before_finalists_the_best_trial_stands_beside_an_anchor_on_dev(
    empty_study: SimulatedStudy,
) -> None:
    record, folder = _study(empty_study), empty_study.trials_folder
    write_transcripts(folder / "2", random.Random(0))
    alone = recognition_data(record, folder)
    assert (alone.split, [network.name for network in alone.networks]) == ("dev", ["trial 2"])
    assert (len(alone.worst), len(alone.drawn)) == (WORST, RANDOM)
    errors = [example.errors for example in alone.worst]
    assert errors == sorted(errors, reverse=True)
    assert max(example.errors for example in alone.drawn) <= errors[-1]
    assert not {e.id for e in alone.worst} & {e.id for e in alone.drawn}
    assert alone == recognition_data(record, folder)
    write_transcripts(folder / "1", random.Random(0))
    both = recognition_data(record, folder)
    assert [network.name for network in both.networks] == [
        "trial 2", "the anchor espnet-ksponspeech"
    ]  # fmt: skip
    assert all(len(example.heard) == 2 for example in both.worst)


def test_the_winner_stands_beside_an_anchor_on_test(empty_study: SimulatedStudy) -> None:
    record = _study(empty_study, finalists=["trial 2", "predicted best", "conformer-s"])
    folder = empty_study.trials_folder
    shared = {"id": "a", "reference": "one two", "hypothesis": "one"}
    _write(folder, 3, "test.jsonl", [shared])
    _write(folder, 4, "test.jsonl", [shared, {"id": "b", "reference": "x", "hypothesis": "y"}])
    _write(folder, 5, "test.jsonl", [shared, {"id": "b", "reference": "z", "hypothesis": "z"}])
    data = recognition_data(record, folder)
    assert data.split == "test"
    assert [(network.name, network.trial) for network in data.networks] == [
        ("predicted best", 4),
        ("the anchor conformer-s", 5),
    ]
    # Of "b" the two had different references, so it is not the same speech.
    assert [network.kinds.words for network in data.networks] == [2, 2]


def test_networks_that_heard_different_speech_are_not_compared(
    empty_study: SimulatedStudy,
) -> None:
    record, folder = _study(empty_study), empty_study.trials_folder
    _write(folder, 2, "hypotheses.jsonl", [{"id": "a", "reference": "x", "hypothesis": "y"}])
    _write(folder, 0, "hypotheses.jsonl", [{"id": "b", "reference": "x", "hypothesis": "y"}])
    assert [network.name for network in recognition_data(record, folder).networks] == ["trial 2"]


def test_errors_are_counted_by_kind_as_jiwer_does() -> None:
    rng = random.Random(3)
    texts = []
    for _ in range(60):
        reference = [rng.choice("abcde") for _ in range(rng.randint(1, 9))]
        hypothesis = [rng.choice("abcde") if rng.random() < 0.3 else w for w in reference]
        texts.append((" ".join(reference), " ".join(hypothesis[rng.randint(0, 1) :])))
    data, _ = mistakes_data([_utterances(*texts)])
    told = jiwer.process_words([text[0] for text in texts], [text[1] for text in texts])
    (kinds,) = data.kinds
    assert (kinds.substituted, kinds.deleted, kinds.inserted) == (
        told.substitutions, told.deletions, told.insertions
    )  # fmt: skip
    assert kinds.wer == pytest.approx(told.wer)
    assert kinds.wrong == sum(reference != hypothesis for reference, hypothesis in texts)


def test_confused_words_are_counted_against_how_often_they_were_spoken() -> None:
    winner = _utterances(("a b a", "the b the"), ("a c", "a"), ("c", "c um"))
    anchor = _utterances(("a b a", "the b a"), ("a c", "a c"), ("c", "c um"))
    data, _ = mistakes_data([winner, anchor])
    assert [(c.spoken, c.heard, c.times, c.others, c.of) for c in data.confusions] == [
        ("a", "the", 2, (1,), 3)
    ]
    assert [(c.spoken, c.times, c.others, c.of) for c in data.missed] == [("c", 1, (0,), 2)]
    assert [(c.heard, c.times, c.others, c.of) for c in data.added] == [("um", 1, (1,), 0)]


def test_lengths_are_grouped_so_that_each_group_has_enough() -> None:
    rng = random.Random(0)
    lengths = [rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 30]) for _ in range(200)]
    texts = [(" ".join("a" * n), " ".join("a" * (n - n // 3))) for n in lengths]
    data, _ = mistakes_data([_utterances(*texts)])
    assert sum(group.utterances for group in data.lengths) == 200
    assert min(group.utterances for group in data.lengths) >= 10
    assert data.lengths[0].label == "1–2"
    assert data.lengths[0].wers[0].value == 0
    assert data.lengths[-1].label.endswith("30")
    counts = Counter(lengths)
    assert data.lengths[0].words == counts[1] + 2 * counts[2]
    equal, _ = mistakes_data([_utterances(*[("a b", "a")] * 30)])
    assert equal.lengths == ()


def test_speakers_are_ranked_by_the_winner_and_drawn_in_both_looks() -> None:
    texts = [("a b", "a b"), ("a b", "a"), ("a b", "x y"), ("", "um")]
    winner = _utterances(*texts, speakers=["ann", "bob", "cy", "silent"])
    anchor = _utterances(*[(r, r) for r, _ in texts], speakers=["ann", "bob", "cy", "silent"])
    data, _ = mistakes_data([winner, anchor])
    assert [(group.label, group.wers[0].value) for group in data.speakers] == [
        ("cy", 1.0), ("bob", 0.5), ("ann", 0.0)
    ]  # fmt: skip
    (panel,) = mistakes_panels(data, ["trial 2", "an anchor"])
    assert "cy: 100.0 %, 0.0 %" in panel.alt
    assert "<path" in inline_svg(panel)
    unknown, _ = mistakes_data([_utterances(*texts)])
    assert unknown.speakers == ()


def test_no_words_at_all_are_no_wer() -> None:
    data, _ = mistakes_data([_utterances(("", "um"), ("", ""))])
    assert data.kinds[0].wer is None
    assert (data.lengths, data.speakers) == ((), ())
