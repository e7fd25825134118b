"""The ready-made studies of published recipes: each can be read, and its networks built."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.config import SHAPE
from model.counting import cost
from study.config_file import load
from study.count import count

STUDIES = Path(__file__).parent.parent.parent / "studies"


@pytest.mark.parametrize("name", sorted(file.name for file in STUDIES.glob("*.yaml")))
def test_the_smallest_the_largest_and_the_anchors_can_be_built(name: str) -> None:
    config = load(STUDIES / name)
    vocabulary = (config.tokens.size or 30) + 3
    shapes = [
        {n: d.extremes[end] for n, d in config.space.items() if n in SHAPE}
        for end in (0, 1)
    ]  # fmt: skip
    sizes = [
        cost(
            config.with_parameters(shape)[0],
            mels=config.features.mels,
            vocabulary=vocabulary,
            frames_per_second=1 / config.features.hop,
        ).parameters
        for shape in (*shapes, *(anchor.shape for anchor in config.anchor_shapes))
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("study", "anchor", "parameters"),
    [
        ("ksponspeech", "espnet-ksponspeech", 112_008_202),  # 112.01 M in ESPnet's README
        ("librispeech-100", "espnet-librispeech-100", 34_229_520),
    ],
)
def test_the_anchor_of_a_recipe_has_the_published_size(
    study: str, anchor: str, parameters: int
) -> None:
    config = load(STUDIES / f"{study}.yaml")
    shape = next(a.shape for a in config.anchor_shapes if a.name == anchor)
    network, _ = config.with_parameters(shape)
    vocabulary = (config.tokens.size or 0) + 3
    assert cost(network, mels=config.features.mels, vocabulary=vocabulary).parameters == parameters


def test_the_paper_s_anchors_are_its_networks() -> None:
    config = load(STUDIES / "paper-table-1.yaml")
    assert [anchor.name for anchor in config.anchor_shapes] == [
        "conformer-s",
        "conformer-m",
        "conformer-l",
    ]
    for anchor in config.anchor_shapes:
        (published,) = count([anchor.name], mels=80, vocabulary=None)
        network, _ = config.with_parameters(anchor.shape)
        assert cost(network, mels=80, vocabulary=1024).parts == published.cost.parts


def test_ksponspeech_has_the_frames_of_the_recipe() -> None:
    from study.data.features import LogMel

    transform = LogMel(load(STUDIES / "ksponspeech.yaml").features)._mel
    assert (transform.n_fft, transform.win_length, transform.hop_length) == (512, 512, 256)
