"""Counting networks from the command line."""

from __future__ import annotations

import pytest

from study.anchors import ANCHORS, RECIPES, VOCABULARIES
from study.count import count
from study.errors import InputError


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["conformer-xs"], "there is no recipe 'conformer-xs'; did you mean 'conformer-s'?"),
        (["qwerty"], "there is no recipe 'qwerty': conformer-s,"),
        (["encoder_layer=3"], "network has no key 'encoder_layer'; did you mean 'encoder_layers'?"),
        (["encoder_dim=["], "encoder_dim=[: the value is not YAML"),
        (["encoder_dim=2024-13-45"], "encoder_dim=2024-13-45: the value is not YAML"),
        (["encoder_layers=many"], "encoder_layers: Input should be a valid integer"),
        (["encoder_dim=100", "attention_heads=8"], "encoder_dim 100 is not divisible by"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: list[str], complaint: str) -> None:
    with pytest.raises(InputError) as error:
        count(words, mels=80, vocabulary=None)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("espnet-ksponspeech", 112_008_202),  # 112.01 M in ESPnet's README
        ("espnet-librispeech-100", 34_229_520),  # 34.23 M
        ("espnet-librispeech", 116_146_960),  # 116.15 M
    ],
)
def test_published_recipes_have_their_published_size(name: str, parameters: int) -> None:
    (counted,) = count([name], mels=80, vocabulary=None)
    assert counted.cost.parameters == parameters


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("conformer-s", 8_690_400), ("conformer-m", 27_262_464), ("conformer-l", 114_850_304)],
)
def test_the_encoders_of_the_paper_have_the_size_of_espnets(name: str, encoder: int) -> None:
    (counted,) = count([name], mels=80, vocabulary=None)
    assert counted.cost.parts["front block"] + counted.cost.parts["encoder"] == encoder
    assert counted.cost.parts["CTC"] == 0


def test_parts_add_up_and_changes_act() -> None:
    plain, changed = count(
        ["conformer-s", "espnet-librispeech-100", "encoder_layers=6"], mels=80, vocabulary=300
    )
    assert sum(plain.cost.parts.values()) == plain.cost.parameters
    (recipe,) = count(["espnet-librispeech-100"], mels=80, vocabulary=300)
    assert changed.cost.parts["encoder"] - 512 == (recipe.cost.parts["encoder"] - 512) / 2
    assert changed.cost.parts["decoder"] == recipe.cost.parts["decoder"]
    assert changed.cost.flops_per_second < recipe.cost.flops_per_second


def test_every_anchor_is_a_recipe() -> None:
    assert set(ANCHORS) == set(RECIPES) == set(VOCABULARIES)
