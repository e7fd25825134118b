"""KsponSpeech: its files, its notation, and the error rate that forgives spaces."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from study.data.audio import read_audio
from study.data.corpus import Utterance
from study.data.ksponspeech import normalise, space_normalised
from study.training.scoring import ErrorCounts, word_errors
from tests.study.data import layouts
from tests.study.data.layouts import corpus_of, open_corpus, refusal_of, texts_of


@pytest.mark.parametrize(
    ("transcript", "spelling", "pronunciation"),
    [
        ("", "", ""),
        ("b/ n/ l/ o/ *", "", ""),
        ("아/ 몬 소리야, 그건 또. b/", "아 몬 소리야 그건 또", "아 몬 소리야 그건 또"),
        ("(70%)/(칠십 퍼센트) 확률이라니", "70 확률이라니", "칠십 퍼센트 확률이라니"),
        ("(70%) / (칠십 퍼센트)", "70", "칠십 퍼센트"),
        ("(2)/(두) 개+ (3)/(세)+ 개", "2 개 3 개", "두 개 세 개"),
        ("네 그+그래", "", ""),  # a + that ends no word: the recipe drops the line
        ("(1)/(한)시+반", "1시반", "한시반"),  # but after a pair it may
        ("그 +그래", "그 그래", "그 그래"),
        ("그+, 그래", "그 그래", "그 그래"),
        ("u/ 했어* u/", "[unk] 했어 [unk]", "[unk] 했어 [unk]"),
        ("가u/", "가[unk]", "가[unk]"),
        ("(PC)/(피씨) 방", "pc 방", "피씨 방"),
        ("o/ 어/ . 네 ?", "어 네", "어 네"),
        ("that's #1 ~ <3", "that's 1 3", "that's 1 3"),
        ("(a)/(b", "ab", "ab"),  # a pair without its end: only the marks go
    ],
)
def test_transcripts_are_written_as_the_recipe_writes_them(
    transcript: str, spelling: str, pronunciation: str
) -> None:
    assert normalise(transcript, "spelling") == spelling
    assert normalise(transcript, "pronunciation") == pronunciation


@pytest.mark.parametrize(
    ("reference", "hypothesis", "normalised", "errors"),
    [
        ("할 수 있다", "할수있다", "할 수 있다", 0),
        ("할수있다", "할 수 있다", "할수있다", 0),
        ("할 수 있다", "할수없다", "할 수없다", 2),  # a wrong letter keeps its own spacing
        ("할 수 있다", "", "", 3),
        ("네", "네 네", "네 네", 1),
        ("가 나다", "가 다", "가다", 2),  # the space went with the letter that is missing
        ("가 나 다", "나 다", "나 다", 1),
        (
            "나 가나",
            "가나 가",
            "가 나 가",
            2,
        ),  # of two alignments with as many errors, the recipe's
    ],
)
def test_spaces_of_the_hypothesis_follow_the_reference(
    reference: str, hypothesis: str, normalised: str, errors: int
) -> None:
    assert space_normalised(reference, hypothesis) == normalised
    (counts,) = word_errors([reference], [normalised])
    assert counts.errors == errors


def test_only_spaces_change_and_right_letters_cost_nothing() -> None:
    generator = random.Random(0)
    saved = 0
    for _ in range(300):
        letters = [generator.choice("가나다라마바사") for _ in range(generator.randint(1, 20))]
        reference, spaced = (
            "".join(c + " " * (generator.random() < 0.3) for c in letters).strip() for _ in range(2)
        )
        assert space_normalised(reference, spaced) == reference
        heard = "".join(
            generator.choice("가나다라") if generator.random() < 0.2 else c for c in spaced
        )
        normalised = space_normalised(reference, heard)
        assert normalised.replace(" ", "") == heard.replace(" ", "")
        counts = [
            sum(word_errors([reference], [text]), ErrorCounts()) for text in (heard, normalised)
        ]
        saved += counts[0].errors - counts[1].errors
    assert saved > 300


TRAIN_1 = "KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000001"


def test_texts_beside_recordings_must_be_there_and_be_cp949(tmp_path: Path) -> None:
    folder = layouts.write_ksponspeech(tmp_path / "corpus")
    (folder / f"{TRAIN_1}.txt").unlink()
    (folder / f"{TRAIN_1.replace('000001', '000002')}.txt").write_bytes(b"\xff\xff")
    corpus = corpus_of("ksponspeech", folder, train=["KsponSpeech_01"], dev=["KsponSpeech_09"])
    refusal = refusal_of(corpus, tmp_path / "cache")
    assert f"corpus.train: there is no file {folder / TRAIN_1}.txt" in refusal
    assert "KsponSpeech_000002.txt:1: cannot be read as CP949 text" in refusal
    assert f"corpus.dev: there is no file {folder}/KsponSpeech_09" in refusal
    (folder / "empty").mkdir()
    corpus = corpus_of("ksponspeech", folder, train=["empty"])
    assert f"there is no .pcm file in {folder}/empty" in refusal_of(corpus, tmp_path / "cache")


def test_ksponspeech_is_read_from_scripts_and_from_folders_alike(tmp_path: Path) -> None:
    folder = layouts.write_ksponspeech(tmp_path)
    texts = {
        "train": ["아 몬 소리야 그건 또", "70 그 그래"],
        "dev": ["근데 [unk] 했어"],
        "test": ["네"],
    }
    assert texts_of("ksponspeech", folder) == texts
    from_folders = texts_of(
        "ksponspeech", folder, train=["KsponSpeech_01"], dev=["KsponSpeech_05"],
        test=["KsponSpeech_eval/eval_clean"],
    )  # fmt: skip
    assert from_folders == texts
    spoken = texts_of("ksponspeech", folder, notation="pronunciation")
    assert spoken["train"][1] == "칠십 퍼센트 그 그래"


def test_headerless_audio_is_heard_as_it_is(tmp_path: Path) -> None:
    folder = layouts.write_ksponspeech(tmp_path)
    split = open_corpus(corpus_of("ksponspeech", folder), tmp_path / "cache").splits["train"]
    samples = np.fromfile(folder / f"{TRAIN_1}.pcm", dtype="<i2")
    soundfile.write(folder / "a.wav", samples, 16000)
    wave = Utterance(id="a", audio=folder / "a.wav", text="")
    raw, with_header = read_audio(split.utterances[0]), read_audio(wave)
    assert not isinstance(raw, str)
    assert not isinstance(with_header, str)
    np.testing.assert_array_equal(raw[0], with_header[0])
    assert split.lengths[0] == 151
