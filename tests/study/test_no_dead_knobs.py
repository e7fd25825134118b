"""No dead knobs: each key of a study.yaml changes what is searched, trained, heard or kept.

Keys of the network, of training, of features and of corpora are tried beside what they configure;
those of the search are tried here, on whole studies whose training is a formula.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.keys import known_paths
from study.storage import open_study
from tests.model.test_config import KNOBS as NETWORK
from tests.reports.planted_study import MIDDLE, SEARCH, Formula, conduct, planted_config
from tests.reports.test_answers import SURFACE
from tests.study.data.test_config import FEATURES
from tests.study.test_finalists_decoding import KNOBS as DECODING
from tests.study.training.test_loop import KNOBS as TRAINING

BASE: dict[str, Any] = {
    "explore": {"trials": 6},
    "refine": {"trials": 8, "survivors": 0.4, "reduction_factor": 2, "first_rung": 0.25},
    "finalists": {"top": 1, "seeds": 1, "anchors": True},
    "seed": 3,
    "search": SEARCH,
}
SEARCHED: dict[str, Any] = {
    "explore.trials": 7,
    "refine.trials": 9,
    "refine.hours": 1e-3,
    "refine.sampler": "random",
    "refine.pruner": "none",
    "refine.first_rung": 0.75,
    "refine.reduction_factor": 4,
    "refine.survivors": 1.0,
    "finalists.top": 2,
    "finalists.seeds": 2,
    "finalists.anchors": False,
    "seed": 4,
    "anchors": [{"name": "middle", **MIDDLE, "encoder_layers": 3}],
    "search.encoder_layers": {"low": 1, "high": 2},
}
ELSEWHERE = {
    # key -> the test that shows what it does
    "training.execution": "tests/study/training/test_compute.py",
    "training.deterministic": "tests/study/training/test_determinism.py",
    "training.dev_share": "tests/study/training/test_loop.py",
    "name": "tests/study/test_storage.py",
    "runs": "tests/study/test_run.py",
    "device": "tests/study/test_trial.py",
    "storage": "tests/study/test_storage.py",
    "log_level": "tests/study/test_trial.py",
    "launcher": "tests/study/test_run.py",
    "tracking": "tests/study/tracking/test_tracking.py",
    "tokens": "tests/study/data/test_config.py",
    **{f"finalists.decoding.{name}": "tests/study/test_finalists_decoding.py" for name in DECODING},
    "corpus.kind": "tests/study/data/test_listing.py",
    "corpus.max_bad_utterances": "tests/study/data/test_dataset.py",
    "corpus.train_utterances": "tests/study/data/test_synthetic.py",
    "corpus.dev_utterances": "tests/study/data/test_synthetic.py",
    "corpus.test_utterances": "tests/study/data/test_synthetic.py",
    "corpus.lowest_snr": "tests/study/data/test_synthetic.py",
    "corpus.highest_snr": "tests/study/data/test_synthetic.py",
    "corpus.reverberant_share": "tests/study/data/test_synthetic.py",
    "corpus.seed": "tests/study/data/test_synthetic.py",
    "corpus.folder": "tests/study/data/test_listing.py",
    "corpus.allow_outside": "tests/study/data/test_listing.py",
    "corpus.train": "tests/study/data/test_config.py",
    "corpus.dev": "tests/study/data/test_config.py",
    "corpus.test": "tests/study/data/test_config.py",
    "corpus.download": "tests/study/data/test_librispeech.py",
    "corpus.lowercase": "tests/study/data/layouts.py",
    "corpus.notation": "tests/study/data/test_ksponspeech.py",
    "corpus.clips": "tests/study/data/test_commonvoice.py",
    "corpus.punctuation": "tests/study/data/test_commonvoice.py",
}


def _outcome(folder: Path, sections: dict[str, Any]) -> list[Any]:
    """What a study did: phases, configurations and how each trial ended."""
    config = planted_config(folder, **sections)
    conduct(config, Formula(SURFACE, 0.004))
    trials = open_study(config).trials
    assert [t.user_attrs["error"] for t in trials if t.user_attrs.get("outcome") == "crashed"] == []
    return [(t.params, t.state, t.values, t.user_attrs.get("phase")) for t in trials]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return _outcome(tmp_path_factory.mktemp("base"), BASE)


def test_the_same_settings_make_the_same_study(baseline: list[Any], tmp_path: Path) -> None:
    assert _outcome(tmp_path, BASE) == baseline


@pytest.mark.parametrize("key", SEARCHED)
def test_every_setting_of_the_search_acts(key: str, baseline: list[Any], tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    value = {**BASE[section], name: SEARCHED[key]} if name else SEARCHED[key]
    assert _outcome(tmp_path, {**BASE, section: value}) != baseline


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("encoder_layers", {"low": 1, "high": 3}, {"low": 2, "high": 3}),
        ("encoder_layers", {"low": 1, "high": 3}, {"low": 1, "high": 4}),
        ("encoder_layers", {"low": 1, "high": 5}, {"low": 1, "high": 5, "step": 2}),
        ("encoder_layers", {"choices": [1, 2]}, {"choices": [1, 3]}),
        ("weight_decay", {"low": 1e-3, "high": 0.1}, {"low": 1e-3, "high": 0.1, "log": True}),
    ],
    ids=["low", "high", "step", "choices", "log"],
)
def test_every_setting_of_a_range_acts(
    name: str, one: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    values = []
    for searched in (one, other):
        config = planted_config(tmp_path, seed=0, search={name: searched})
        values.append([config.space[name].at(share / 20) for share in range(20)])
    assert values[0] != values[1]


def test_every_key_is_tried() -> None:
    tried = {
        *SEARCHED,
        *ELSEWHERE,
        *(f"network.{name}" for name in NETWORK),
        *(f"training.{name}" for name in TRAINING),
        *(f"features.{name}" for name in FEATURES),
    }
    keys = [key for key in known_paths() if key.partition(".")[0] != "search"]  # above
    sections = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    untried = [
        key
        for key in keys
        if key not in tried | sections and key.partition(".")[0] not in ELSEWHERE
    ]
    assert untried == []
    assert all(Path(file).is_file() for file in ELSEWHERE.values())
