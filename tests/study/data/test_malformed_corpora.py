"""Everything that can be wrong with a corpus on disk, each said with its file and line."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from study.config_file import load
from study.errors import InputError
from tests.speech import write_corpus
from tests.study.data import layouts
from tests.study.data.layouts import BUILD, corpus_of, open_corpus, refusal_of, replace_in

LONG = "data/train"


CHAPTER = "LibriSpeech/train-clean-100/103/1240"


TRAIN_1 = "KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000001"


REPLACED = [
    # kind, file, what stands there, what stands there instead, part of the complaint with its line
    ("manifest", "train.jsonl", '"audio/train-0.wav"', '"/etc/passwd"', "train.jsonl:1: the audio /etc/passwd lies outside of"),
    ("manifest", "train.jsonl", '"audio/train-1.wav"', '"../other/a.wav"', "train.jsonl:2: the audio ../other/a.wav lies outside of"),
    ("manifest", "train.jsonl", '"audio/train-1.wav"', '"audio/../../a.wav"', "train.jsonl:2: the audio audio/../../a.wav lies outside"),
    ("manifest", "train.jsonl", '"audio/train-0.wav"', '""', "train.jsonl:1: the path of the audio is empty"),
    ("manifest", "train.jsonl", '"audio/train-0.wav"', r'"a\u0000.wav"', "train.jsonl:1: the path of the audio is empty or has a null character"),
    ("manifest", "train.jsonl", '"audio/train-0.wav"', '"audio"', "there is no audio file"),
    ("manifest", "train.jsonl", '"train-0"', '""', "train.jsonl:1: the id is empty"),
    ("manifest", "train.jsonl", '"red light on"', r'"red \ud800"', "train.jsonl:1: holds half of a surrogate pair"),
    ("manifest", "dev.jsonl", '"dev-0"', '"train-0"', "dev.jsonl:1: id 'train-0' stands already at"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"duration": Infinity', "train.jsonl:1: duration is inf"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"duration": NaN', "train.jsonl:1: duration is nan"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"duration": "1"', "train.jsonl:1: duration is '1'"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"duration": true', "train.jsonl:1: duration is True"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"speaker": 4', "train.jsonl:1: speaker is 4, not a string"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"x": ' + "[" * 100_000, "train.jsonl:1: not JSON that can be read"),
    ("manifest", "train.jsonl", '"speaker": "s0"', '"x": ' + "1" * 5000, "train.jsonl:1: not JSON that can be read"),
    ("librispeech", f"{CHAPTER}/103-1240.trans.txt", "103-1240-0001 MISSUS RACHEL LYNDE'S", "103-1240-0001", "trans.txt:2: '103-1240-0001' has no transcript"),
    ("librispeech", f"{CHAPTER}/103-1240.trans.txt", "103-1240-0001", "103-1240-0000", "trans.txt:2: id '103-1240-0000' stands already at"),
    ("librispeech", f"{CHAPTER}/103-1240.trans.txt", "103-1240-0001", "104-1240-0001", "trans.txt:2: '104-1240-0001' is not an utterance of 103-1240-"),
    ("librispeech", f"{CHAPTER}/103-1240.trans.txt", "\n", "\n\n", "trans.txt:3: stands after a blank line"),
    ("librispeech", f"{CHAPTER}/103-1240.trans.txt", "103-1240-0001 MISSUS RACHEL LYNDE'S\n", "", "Translation not found for 103-1240-0001"),
    ("ksponspeech", "scripts/train.trn", " :: 아/", " : 아/", "train.trn:1: is not 'path :: transcript'"),
    ("ksponspeech", "scripts/train.trn", "000001.pcm", "000001.wav", f"train.trn:1: '{TRAIN_1}.wav' is not a .pcm file"),
    ("ksponspeech", "scripts/train.trn", "000002.pcm", "000001.pcm", "train.trn:2: id 'KsponSpeech_000001' stands already at"),
    ("ksponspeech", "scripts/train.trn", "KsponSpeech_01/", "../", "train.trn:1: the audio ../KsponSpeech_0001/KsponSpeech_000001.pcm lies outside"),
    ("ksponspeech", "scripts/train.trn", "KsponSpeech_01/", "/", "train.trn:1: the audio /KsponSpeech_0001/KsponSpeech_000001.pcm lies outside"),
    ("ksponspeech", "scripts/train.trn", "000001.pcm", "000009.pcm", "train.trn:1: 'KsponSpeech_000009': there is no audio file"),
    ("ksponspeech", "scripts/train.trn", "아/ 몬 소리야, 그건 또. b/", "b/ n/ .", "train.trn:1: 'KsponSpeech_000001': the transcript is empty"),
    ("ksponspeech", "scripts/train.trn", "몬 소리야", "몬+소리야", "train.trn:1: 'KsponSpeech_000001': the transcript is empty"),
    ("commonvoice", "train.tsv", "sentence", "text", "train.tsv:1: the column sentence is missing"),
    ("commonvoice", "train.tsv", "client_id\tpath", "client\tfile", "train.tsv:1: the column client_id and path is missing"),
    ("commonvoice", "train.tsv", "client_id\tpath\tsentence", "client_id,path,sentence", "train.tsv:1: the column client_id and path and sentence is missing"),
    ("commonvoice", "train.tsv", "\tRed light", "\tRed\tlight", "train.tsv:3: has 8 columns, and the first line 7"),
    ("commonvoice", "train.tsv", "common_voice_en_1.mp3", "../../x.mp3", "train.tsv:2: the audio ../../x.mp3 lies outside of"),
    ("commonvoice", "train.tsv", "common_voice_en_1.mp3", "/x.mp3", "train.tsv:2: the audio /x.mp3 lies outside of"),
    ("commonvoice", "train.tsv", "common_voice_en_1.mp3", "", "train.tsv:2: the path of the audio is empty"),
    ("commonvoice", "train.tsv", "common_voice_en_1.mp3", "common_voice_en_7.mp3", "train.tsv:2: 'common_voice_en_7': there is no audio file"),
    ("commonvoice", "train.tsv", "common_voice_en_2.mp3", "common_voice_en_1.mp3", "train.tsv:3: id 'common_voice_en_1' stands already at"),
    ("commonvoice", "train.tsv", "Red light", "?!", "train.tsv:3: 'common_voice_en_2': the transcript is empty"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "touch run; sox audio/long.wav -t wav - |", "wav.scp:1: is a command, and commands are not run"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "| touch run", "wav.scp:1: is a command"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "data/wav.ark:1234", "wav.scp:1: is in a Kaldi archive"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "data/wav.ark", "wav.scp:1: is in a Kaldi archive"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "/data/long.wav", "wav.scp:1: the audio /data/long.wav lies outside"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "../long.wav", "wav.scp:1: the audio ../long.wav lies outside"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "", "wav.scp:1: the path of the audio is empty"),
    ("kaldi", f"{LONG}/wav.scp", "audio/long.wav", "audio/none.wav", "segments:1: 'a-1': there is no audio file"),
    ("kaldi", f"{LONG}/wav.scp", "long.wav\n", "long.wav\nlong audio/dev.wav\n", "wav.scp:2: id 'long' stands already at"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5", "segments:1: is not '<utterance> <recording> <begin> <end>'"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5 end", "segments:1: is not '<utterance> <recording> <begin> <end>'"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 1.5 0.5", "segments:1: from 1.5 s to 0.5 s is not a stretch"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 1.5 1.5", "segments:1: from 1.5 s to 1.5 s is not a stretch"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long -2 1.5", "segments:1: from -2 s to 1.5 s is not a stretch"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5 nan", "segments:1: from 0.5 s to nan s is not a stretch"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5 inf", "segments:1: from 0.5 s to inf s is not a stretch"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "short 0.5 1.5", "segments:1: the recording 'short' has no line in wav.scp"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 9 10", "segments:1: 'a-1': begins at 9 s, and"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5 5.5", "segments:1: 'a-1': ends at 5.5 s, and"),
    ("kaldi", f"{LONG}/segments", "long 0.5 1.5", "long 0.5 0.51", "segments:1: 'a-1': the audio is 0.010 s long"),
    ("kaldi", f"{LONG}/segments", "a-2", "a-1", "segments:2: id 'a-1' stands already at"),
    ("kaldi", f"{LONG}/text", "a-1 red light\n", "", "segments:1: 'a-1' has no line in text"),
    ("kaldi", f"{LONG}/text", "a-1 red light", "a-1", "segments:1: 'a-1': the transcript is empty"),
    ("kaldi", f"{LONG}/text", "a-2", "a-3", "text:2: 'a-3' has no recording and no segment"),
    ("kaldi", f"{LONG}/utt2spk", "a-1 a\n", "", "segments:1: 'a-1' has no line in utt2spk"),
    ("kaldi", "data/dev/text", "d blue", "d blue\nd red", "text:2: id 'd' stands already at"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "file", "old", "new", "complaint"), REPLACED)
def test_what_is_wrong_with_a_list_is_said_with_its_line(
    tmp_path: Path, kind: str, file: str, old: str, new: str, complaint: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    replace_in(folder, file, old, new)
    assert complaint in refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert not Path("run").exists()
    assert not (folder / "run").exists()


LISTS = [
    ("manifest", "dev.jsonl"),
    ("librispeech", "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt"),
    ("ksponspeech", "scripts/dev.trn"),
    ("commonvoice", "dev.tsv"),
    ("kaldi", "data/dev/wav.scp"),
    ("kaldi", "data/dev/text"),
    ("kaldi", "data/dev/utt2spk"),
    ("lhotse", "cuts_dev.jsonl.gz"),
]


@pytest.mark.parametrize(("kind", "file"), LISTS)
def test_a_missing_list_is_said_with_where_to_get_thecorpus_of(
    tmp_path: Path, kind: str, file: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    target = folder / "LibriSpeech/dev-clean" if kind == "librispeech" else folder / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert (
        f"corpus.dev: there is no {'folder' if target.suffix == '' and kind == 'librispeech' else 'file'} {target}"
        in refusal
    )
    assert "set corpus.folder to" in refusal


@pytest.mark.parametrize(("kind", "file"), LISTS)
def test_a_list_in_another_encoding_is_refused(tmp_path: Path, kind: str, file: str) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    content = b"\xff\xfe\xb0\xa1"
    (folder / file).write_bytes(gzip.compress(content) if file.endswith(".gz") else content)
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert f"{file}:1: cannot be read as UTF-8" in refusal


AUDIO = [
    ("manifest", "audio/train-0.wav", "train.jsonl:1"),
    ("librispeech", f"{CHAPTER}/103-1240-0000.flac", "trans.txt:1"),
    ("commonvoice", "clips/common_voice_en_1.mp3", "train.tsv:2"),
    ("kaldi", "audio/dev.wav", "dev/wav.scp:1"),
    ("lhotse", "audio/dev.wav", "cuts_dev.jsonl.gz:1"),
]


@pytest.mark.parametrize(("kind", "file", "place"), AUDIO)
@pytest.mark.parametrize("content", [b"", b"no audio at all, but some bytes of text"])
def test_unreadable_audio_is_said_with_its_line(
    tmp_path: Path, kind: str, file: str, place: str, content: bytes
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    (folder / file).write_bytes(content)
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert place in refusal
    assert "cannot be read" in refusal


@pytest.mark.parametrize(("kind", "file", "place"), AUDIO)
def test_missing_audio_is_said_with_its_line(
    tmp_path: Path, kind: str, file: str, place: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    (folder / file).unlink()
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert place in refusal
    assert f"there is no audio file {folder / file}" in refusal


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the audio is 0.000 s long"),
        (b"\0" * 16001, "has an odd number of bytes"),
        (b"\0" * 200, "the audio is 0.006 s long"),
    ],
)
def test_headerless_audio_that_is_none_is_said(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    folder = layouts.write_ksponspeech(tmp_path / "corpus")
    (folder / f"{TRAIN_1}.pcm").write_bytes(content)
    refusal = refusal_of(corpus_of("ksponspeech", folder), tmp_path / "cache")
    assert "train.trn:1" in refusal
    assert complaint in refusal


@pytest.mark.parametrize("kind", BUILD)
def test_names_of_unknown_settings_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="Unexpected keyword argument"):
        corpus_of(kind, tmp_path, foldr="x")


def test_a_key_of_another_kind_is_called_so(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("corpus: {kind: kaldi, notation: spelling}\nexplore: {trials: 1}\n")
    with pytest.raises(InputError) as error:
        load(study)
    assert str(error.value) == (
        f"{study}:1: corpus.notation: there is no such key, only another kind has it"
    )


def test_many_faults_are_counted_and_the_first_named(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus")
    (folder / "dev.jsonl").write_text("{\n" * 80)
    with pytest.raises(InputError) as error:
        corpus_of("manifest", folder).read(tmp_path)
    assert len(error.value.faults) == 51
    assert error.value.faults[-1] == "and 30 more faults of this corpus"


@pytest.mark.parametrize(("kind", "file"), LISTS)
def test_an_empty_list_is_said(tmp_path: Path, kind: str, file: str) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    (folder / file).write_bytes(gzip.compress(b"") if file.endswith(".gz") else b"")
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    expected = {
        "data/dev/wav.scp": "data/dev/text:1: 'd' has no recording and no segment",
        LISTS[1][1]: "Translation not found for 84-121123-0000",
    }
    assert expected.get(file, "the split 'dev' has no utterances") in refusal


@pytest.mark.parametrize(("kind", "file", "place"), AUDIO)
def test_audio_of_no_seconds_is_said_with_its_line(
    tmp_path: Path, kind: str, file: str, place: str
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    audio = folder / file
    soundfile.write(audio, np.zeros(0, dtype=np.float32), 16000, format="WAV")  # names do not count
    refusal = refusal_of(corpus_of(kind, folder), tmp_path / "cache")
    assert place in refusal
    assert "the audio is 0.000 s long" in refusal


@pytest.mark.parametrize(("kind", "file", "place"), AUDIO)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 1), (16000, 2), (48000, 2)])
def test_audio_of_any_rate_and_any_number_of_channels_is_taken(
    tmp_path: Path, kind: str, file: str, place: str, rate: int, channels: int
) -> None:
    folder = BUILD[kind](tmp_path / "corpus")
    audio = folder / file
    seconds = soundfile.info(audio).duration
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    form = "FLAC" if audio.suffix == ".flac" else "WAV"
    soundfile.write(audio, np.stack([tone] * channels, axis=1), rate, format=form)
    corpus = corpus_of(kind, folder, max_bad_utterances=0)
    dataset = open_corpus(corpus, tmp_path / "cache")
    (utterance,) = [
        (number, split)
        for split in dataset.splits.values()
        for number, u in enumerate(split.utterances)
        if u.audio.resolve() == audio.resolve()
    ]
    number, split = utterance
    assert abs(split.lengths[number] * 0.010 - seconds) < 0.05
