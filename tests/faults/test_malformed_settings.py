"""Malformed YAML, settings and arguments: each is refused in a sentence that names its place."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from study.config_file import load
from study.errors import InputError
from study.keys import known_paths
from study.worker import device_of_workers, refuse_graphs
from tests.faults.refusal import Refuse, refuse

__all__ = ["refuse"]

TINY = Path(__file__).parent.parent / "tiny_study.yaml"
GOOD = TINY.read_text(encoding="utf-8")

BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Some hundred bytes that are 9⁹ values when the aliases are spelt out."""
FILES = {
    # what stands in the file -> part of the complaint
    "": "corpus: is missing",
    "# nothing": "corpus: is missing",
    "- 1\n- 2": "a study is a mapping",
    "text": "a study is a mapping",
    "42": "a study is a mapping",
    "null": "a study is a mapping",
    "corpus: {kind: synthetic": "not YAML",
    "corpus: [synthetic": "not YAML",
    "corpus:\n\tkind: synthetic": "not YAML",
    "corpus: 'synthetic": "not YAML",
    "corpus: {kind: synthetic}}": "not YAML",
    "a: b: c": "not YAML",
    "corpus: *nowhere": "not YAML",
    "corpus: !!python/object/apply:os.mkdir [made]": "not YAML",
    "corpus: !!python/name:os.system": "not YAML",
    "corpus: !unknown {kind: synthetic}": "not YAML",
    "corpus: {kind: synthetic}\n---\ncorpus: {kind: synthetic}": "not YAML",
    "corpus: &a {kind: *a}": "bad.yaml:1: an alias (*) makes this file endless",
    "corpus: {kind: synthetic}\ncorpus: {kind: manifest}": "stands twice",
    "? {a: b}\n: c": "bad.yaml:1: not YAML: found unhashable key",
    "? [a, b]\n: c": "bad.yaml:1: not YAML: found unhashable key",
    "1: 2\ncorpus: {kind: synthetic}": "keys should be strings",
    "corpus: {kind: synthetic}\n\0": "bad.yaml:2: not YAML: the character #x0000 cannot stand",
    "corpus: {kind: synthetic}\nname: \x1b": "bad.yaml:2: not YAML: the character #x001b cannot",
    "corpus: {kind: synthetic}\nseed: 1e400": "seed",
    "corpus: {kind: synthetic}\nseed: .nan": "seed",
    "corpus: {kind: synthetic}\ntraining: {learning_rate: .inf}": "learning_rate",
    "corpus: {kind: synthetic}\ntraining: {learning_rate: .nan}": "learning_rate",
    "corpus: {kind: synthetic}\nseed: 2024-01-01": "seed",
    "corpus: {kind: synthetic}\nname: ../elsewhere": "name",
    "corpus: {kind: synthetic}\nname: a/b": "name",
    "corpus: {kind: synthetic}\nname: ''": "name",
    "corpus: {kind: synthetic}\nname: -o": "name",
    "corpus: {kind: synthetic}\nruns: [a]": "runs",
    "corpus: {kind: nothing}": "'nothing' is not one of",
    "corpus: {train: a.jsonl}": "corpus: has no kind",
    "corpus: synthetic": "corpus",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: {choices: []}}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: {low: 9, high: 1}}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: {low: 1}}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: {choices: [a]}}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: 4}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: [encoder_dim]": "search",
    "corpus: {kind: synthetic}\nsearch: {learning_rate: {low: 0, high: 1, log: true}}": "search.learning_rate",
    "corpus: {kind: synthetic}\nsearch: {learning_rate: {low: .nan, high: 1}}": "search.learning_rate",
    "corpus: {kind: synthetic}\nsearch: {learning_rate: {low: 1e-4, high: .inf}}": "search.learning_rate",
    "corpus: {kind: synthetic}\nsearch: {encoder_dim: {choices: [-8, 8]}}": "search.encoder_dim",
    "corpus: {kind: synthetic}\nsearch: {encoder_layers: {low: 1, high: 1000000000}}": "give a step",
    BOMB: "endless",
    "corpus: {kind: synthetic}\nanchors: [nobody]": "there is no known shape 'nobody'",
    "corpus: {kind: synthetic}\nanchors: [{encoder_dim: -1}]": "anchors.0.encoder_dim",
    "corpus: {kind: synthetic}\nanchors: [{encoder_dim: 7}]": "7 is not divisible by attention_heads",
    "corpus: {kind: synthetic}\nanchors: 5": "anchors",
    "corpus: {kind: synthetic}\nanchors: [[1]]": "anchors",
    "corpus: {kind: synthetic}\nanchors: [{name: [1], encoder_dim: 8}]": "anchors",
    "corpus: {kind: synthetic}\nanchors: [conformer-s, conformer-s]": "a second anchor is called",
    "corpus: {kind: synthetic}\nexplore: {trials: 0}\nrefine: {trials: 0}": "no trials",
    "corpus: {kind: synthetic}\ntraining: {budget: {epochs: 1, steps: 2}}": "exactly one of",
    "corpus: {kind: synthetic}\ntraining: {warmup: 0.8, decay: 0.8}": "at most 1",
    "corpus: {kind: synthetic}\ntokens: {kind: bpe}": "tokens.size",
}  # fmt: skip


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, refuse: Refuse, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    errors = refuse("check", file)
    assert "bad.yaml" in errors
    assert FILES[text] in errors
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"name: \xe9", b"\x80" * 50, bytes(range(256))])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, refuse: Refuse, content: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    assert "bad.yaml" in refuse("run", tmp_path / "bad.yaml")


SCALARS = [
    key
    for key in known_paths()
    if not any(other.startswith(f"{key}.") for other in known_paths())
    and not key.startswith(("search.", "anchors", "corpus."))
]


@pytest.mark.parametrize("key", SCALARS)
def test_no_key_takes_a_mapping_for_its_value(tmp_path: Path, refuse: Refuse, key: str) -> None:
    errors = refuse("check", TINY, "-o", f"runs={tmp_path}/runs", "-o", f"{key}={{a: 1}}")
    assert key in errors


GRAPHS = ("-o", "training.execution=graphs")
ARGUMENTS = [
    # arguments, part of the complaint
    (["nonsense"], "no such command"),
    (["run", "--nonsense"], "no such option"),
    (["run", "a.yaml", "b.yaml"], "unexpected extra argument"),
    (["run", "nowhere.yaml"], "there is no study file nowhere.yaml"),
    (["run", "."], "cannot be read"),
    (["run", "/dev/null/x"], "cannot be read"),
    (["run", TINY, "--workers", "0"], "should be"),
    (["run", TINY, "--workers", "-3"], "should be"),
    (["run", TINY, "--workers", "two"], "should be a valid integer"),
    (["run", TINY, "--workers"], "requires an argument"),
    (["run", TINY, "--device", "tpu"], "'tpu' is not one of"),
    (["run", TINY, "-o"], "requires an argument"),
    (["run", TINY, "-o", "seed"], "write it as dotted.path=value"),
    (["run", TINY, "-o", "=3"], "write it as dotted.path=value"),
    (["run", TINY, "-o", ".=3"], "write it as dotted.path=value"),
    (["run", TINY, "-o", "a..b=3"], "write it as dotted.path=value"),
    (["run", TINY, "-o", "seed={"], "the value is not YAML"),
    (["run", TINY, "-o", "seed=!!python/name:os.system"], "the value is not YAML"),
    (["run", TINY, "-o", "seed.x=3"], "seed is not a section"),
    (["run", TINY, "-o", "explore=3"], "explore"),
    (["run", TINY, "-o", "explore.trails=3"], "did you mean 'explore.trials'"),
    (["run", TINY, "-o", "corpus.folder=x"], "only another kind has it"),
    (["run", TINY, "-o", "storage=text"], "is not a kind of storage"),
    (["run", TINY, "-o", "storage=ftp://host/db"], "storage: "),
    (["run", TINY, "-o", "tracking.uri=ftp://host"], "MLflow cannot log to"),
    (["check", TINY, "-o", "training.batch_seconds=-1"], "training.batch_seconds"),
    (["check", TINY, *GRAPHS, "--device", "cpu"], "graphs is not possible here: CUDA graphs need"),
    (["run", TINY, *GRAPHS, "--device", "cpu"], "graphs is not possible here: CUDA graphs need"),
    (["report", TINY], "has not begun"),
    (["status", TINY], "has not begun"),
    (["finalists", TINY], "has not begun"),
    (["sync", TINY], "has not begun"),
    (["sync", TINY, "-o", "tracking.enabled=false"], "is not logged to MLflow"),
    (["dashboard", TINY], "has not begun"),
    (["ui", TINY], "run a study first"),
    (["ui", TINY, "--port", "x"], "should be a valid integer"),
    (["compare"], "missing argument"),
    (["compare", TINY], "two studies or more"),
    (["compare", TINY, TINY], "has not begun"),
    (["compare", "nowhere.yaml", TINY], "there is no study file nowhere.yaml"),
    (["transcribe"], "missing argument"),
    (["transcribe", "a.wav", "--study", TINY], "has not begun"),
    (["transcribe", "a.wav", "--study", TINY, "--trial", "-1"], "should be"),
    (["count"], "missing argument"),
    (["count", "conformer-xxl"], "conformer-xxl"),
    (["count", "encoder_dim"], "encoder_dim"),
    (["count", "encoder_dim=wide"], "encoder_dim"),
    (["count", "encoder_dim=0"], "encoder_dim"),
    (["count", "encoder_dim=7"], "encoder_dim"),
    (["count", "encoder_dim="], "encoder_dim"),
    (["count", "nonsense=3"], "nonsense"),
    (["count", "conformer-s", "--vocabulary", "1"], "should be"),
    (["count", "conformer-s", "--mels", "x"], "should be a valid integer"),
    (["corpus", TINY, "-o", "corpus={kind: manifest, folder: nowhere}"], "set corpus.folder"),
    (["worker"], "there is no study file study.yaml"),
    (["worker", "nowhere.yaml"], "there is no study file nowhere.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    ARGUMENTS,
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_arguments_that_make_no_sense_are_refused(
    refuse: Refuse, arguments: list[str | Path], complaint: str
) -> None:
    assert complaint.lower() in refuse(*arguments).lower()


def test_graphs_are_refused_where_the_trials_would_train() -> None:
    graphs = ["training.execution=graphs"]
    elsewhere = [*graphs, "launcher.kind=slurm", "launcher.workers=2"]
    cpu = torch.device("cpu")
    for options, device in ((graphs, "cpu"), (elsewhere, "cuda"), (["device=cpu"], "cpu")):
        assert device_of_workers(load(TINY, options), cpu) == device
    refuse_graphs(load(TINY, elsewhere), "cuda")
    refuse_graphs(load(TINY, []), "cpu")
    depth = "search.stochastic_depth={low: 0.0, high: 0.1}"
    for options, obstacle in (
        (graphs, "need a CUDA device"),
        ([*graphs, depth], "each step has other blocks"),
    ):
        with pytest.raises(InputError, match=obstacle):
            refuse_graphs(load(TINY, options), "cuda" if depth in options else "cpu")


def _mutated(text: str, seed: int) -> str:
    """The text with one to three small injuries, as a slip of the hand makes them."""
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(text))
        other = draw.choice(
            [
                "",
                "",
                "{",
                "]",
                ":",
                "\n",
                "\t",
                "'",
                "- ",
                "&a ",
                "*",
                "0",
                "x",
                "é",
                "\0",
                "%",
                "!!",
            ]
        )
        text = text[:place] + other + text[place + draw.randint(0, 6) :]
    return text


@pytest.mark.parametrize("seed", range(8))
def test_a_study_with_small_injuries_loads_or_is_refused(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "study.yaml"
    refused = 0
    for number in range(50):
        file.write_text(_mutated(GOOD, 1000 * seed + number), encoding="utf-8")
        try:
            load(file)
        except InputError as error:
            assert all(fault.startswith(str(file)) for fault in error.faults), error.faults
            refused += 1
    assert refused >= 20
