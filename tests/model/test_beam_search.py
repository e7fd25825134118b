"""Beam search: ESPnet's hypotheses and scores, and an exhaustive search where there are few."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model import beam_search as beam_search_module
from model.beam_search import CTCPrefixScorer, Hypothesis, beam_search
from model.config import Decoding
from model.ctc import BLANK
from model.decoder import AttentionDecoder
from model.recogniser import Recogniser
from tests.model.beside_espnet import VOCABULARY, espnet_model, exported, recogniser_of
from tests.model.test_encoder import SMALL

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast.*:FutureWarning")  # ESPnet's

LENGTHS = torch.tensor([12, 5, 9, 12])

DECODINGS: dict[str, dict[str, Any]] = {
    "usual": {"beam_size": 5, "ctc_weight": 0.3},
    "greedy": {"beam_size": 1, "ctc_weight": 0.0},
    "one hypothesis": {"beam_size": 1, "ctc_weight": 0.5},
    "no pre-beam": {"beam_size": 10, "ctc_weight": 0.3},
    "attention alone": {"beam_size": 4, "ctc_weight": 0.0, "penalty": 0.4},
    "CTC alone": {"beam_size": 4, "ctc_weight": 1.0},
    "mostly CTC, short": {"beam_size": 3, "ctc_weight": 0.7, "penalty": -0.5},
    "long": {"beam_size": 3, "ctc_weight": 0.2, "penalty": 1.5},
    "at most": {"beam_size": 3, "ctc_weight": 0.3, "maxlenratio": 0.4},
    "at most four": {"beam_size": 6, "ctc_weight": 0.3, "maxlenratio": -4, "penalty": 1.0},
    "at least": {"beam_size": 6, "ctc_weight": 0.3, "minlenratio": 0.3},
    "at least two": {"beam_size": 6, "ctc_weight": 0.1, "minlenratio": -2},
}


def _lively(vocabulary: int = VOCABULARY, **changes: Any) -> Recogniser:
    """One whose scores depend on what was written and heard, so that the beam has work to do."""
    recogniser = recogniser_of(**changes)
    if vocabulary != VOCABULARY:
        torch.manual_seed(3)
        recogniser = Recogniser(recogniser.config, mels=20, vocabulary=vocabulary)
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    with torch.no_grad():
        decoder.output.weight.mul_(4)
        decoder.output.bias[decoder.boundary] += 5
        decoder.output.bias[BLANK] -= 50  # which the decoder is never taught
        if recogniser.ctc is not None:
            recogniser.ctc.output.weight.mul_(5)
            recogniser.ctc.output.bias[BLANK] += 3
    return recogniser.eval()


def _memory(seed: int = 0, batch: int = 4, frames: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, SMALL.encoder_dim, generator=generator)


def _found(
    recogniser: Recogniser, memory: Tensor, lengths: Tensor, decoding: Decoding
) -> list[list[Hypothesis]]:
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    return beam_search(decoder, recogniser.ctc, memory, lengths, decoding)


def _ctc_log_probability(scores: Tensor, tokens: list[int]) -> float:
    """Of a whole transcript, by torch's CTC loss; scores `(T, V)`."""
    loss = functional.ctc_loss(
        scores.double().unsqueeze(1), torch.tensor([tokens], dtype=torch.long),
        torch.tensor([len(scores)]), torch.tensor([len(tokens)]), blank=BLANK, reduction="sum",
    )  # fmt: skip
    return -loss.item()


@pytest.fixture(scope="module")
def searches(espnet: SimpleNamespace) -> SimpleNamespace:
    """ESPnet's beam search and its scorers."""
    with contextlib.redirect_stdout(sys.stderr):
        from espnet.nets.beam_search import BeamSearch
        from espnet.nets.scorers.ctc import CTCPrefixScorer
        from espnet.nets.scorers.length_bonus import LengthBonus
    return SimpleNamespace(
        BeamSearch=BeamSearch, CTCPrefixScorer=CTCPrefixScorer, LengthBonus=LengthBonus
    )


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"beam_size": 0}, "beam_size 0 is below 1"),
        ({"ctc_weight": 1.1}, "ctc_weight 1.1 is not between 0 and 1"),
        ({"ctc_weight": float("nan")}, "ctc_weight nan is not"),
        ({"penalty": float("inf")}, "penalty inf is not finite"),
        ({"maxlenratio": -0.5}, "maxlenratio -0.5 is neither a ratio"),
        ({"minlenratio": float("nan")}, "minlenratio nan is neither"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], value: str) -> None:
    with pytest.raises(ValueError, match=value):
        Decoding(**changes)


def test_ctc_has_no_say_where_there_is_none() -> None:
    recogniser = _lively(ctc_weight=0.0)
    with pytest.raises(ValueError, match=r"ctc_weight: 0\.3 of the score is CTC's"):
        recogniser.transcribe(_memory(), LENGTHS, Decoding(ctc_weight=0.3))
    with pytest.raises(ValueError, match=r"ctc_weight is 0\.3, and the network has no CTC branch"):
        _found(recogniser, _memory(), LENGTHS, Decoding(ctc_weight=0.3))
    without = _found(recogniser, _memory(), LENGTHS, Decoding(ctc_weight=0.0))
    assert _found(recogniser, _memory(), LENGTHS, Decoding()) == without
    transcripts = recogniser.transcribe(_memory(), LENGTHS, Decoding(ctc_weight=0.0))
    assert transcripts.ctc is None
    assert len(transcripts.decoder) == 4


@pytest.mark.parametrize(
    "changes",
    [{"ctc_weight": 0.3}, {"penalty": 0.5}, {"maxlenratio": 0.5}, {"minlenratio": -2}],
)
def test_a_transducer_refuses_what_it_cannot_use(changes: dict[str, Any]) -> None:
    recogniser = Recogniser(_transducer_config(), mels=20, vocabulary=VOCABULARY).eval()
    decoding = Decoding(**changes)
    with pytest.raises(ValueError, match="beam_size alone"):
        recogniser.transcribe(_memory(), LENGTHS, decoding)


def test_a_transducer_searches_with_its_own_beam() -> None:
    torch.manual_seed(0)
    recogniser = Recogniser(_transducer_config(), mels=20, vocabulary=VOCABULARY).eval()
    decoder = recogniser.decoder
    assert not isinstance(decoder, AttentionDecoder)
    found = recogniser.transcribe(_memory(), LENGTHS, Decoding(beam_size=3))
    expected = decoder.beam_search(_memory(), LENGTHS, 3)
    assert found.decoder == [hypothesis.tokens for hypothesis in expected]


def _transducer_config() -> Any:
    from tests.model.test_transducer import CONFIG

    return CONFIG


def test_one_hypothesis_without_ctc_is_greedy_decoding() -> None:
    recogniser = _lively()
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    with torch.no_grad():
        decoder.output.bias[decoder.boundary] -= 4  # or a single path would be empty
    decoding = Decoding(beam_size=1, ctc_weight=0.0)
    lengths = set()
    for seed in range(5):
        greedy = recogniser.transcribe(_memory(seed), LENGTHS)
        assert recogniser.transcribe(_memory(seed), LENGTHS, decoding) == greedy
        lengths |= set(map(len, greedy.decoder))
    assert len(lengths) > 2  # some end of themselves, and not all at once


@pytest.mark.parametrize("name", DECODINGS)
def test_an_utterance_alone_and_in_a_batch_has_the_same_hypotheses(name: str) -> None:
    recogniser, decoding = _lively(), Decoding(**DECODINGS[name])
    memory = _memory(1)
    memory[torch.arange(12) >= LENGTHS[:, None]] = 50.0
    together = _found(recogniser, memory, LENGTHS, decoding)
    for row, length in enumerate(LENGTHS.tolist()):
        (alone,) = _found(
            recogniser, memory[row : row + 1, :length], LENGTHS[row : row + 1], decoding
        )
        _assert_same(together[row], alone)


@pytest.mark.parametrize("name", DECODINGS)
def test_hypotheses_and_scores_are_espnets(
    searches: SimpleNamespace, espnet: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    recogniser, decoding = _lively(), Decoding(**DECODINGS[name])
    model = espnet_model(espnet, exported(recogniser), tmp_path).eval()
    search = _espnet_search(searches, model, decoding)
    for seed in range(3):
        memory = _memory(seed)
        found = _found(recogniser, memory, LENGTHS, decoding)
        for row, length in enumerate(LENGTHS.tolist()):
            with torch.no_grad():
                theirs = search(
                    memory[row, :length],
                    maxlenratio=decoding.maxlenratio,
                    minlenratio=decoding.minlenratio,
                )
            expected = [
                # At the longest length it ends also what has ended already.
                Hypothesis(
                    tokens=[token for token in h.yseq.tolist() if token != VOCABULARY - 1],
                    score=float(h.score),
                )
                for h in theirs
            ]
            _assert_same(found[row], expected)


def _espnet_search(searches: SimpleNamespace, model: Any, decoding: Decoding) -> Any:
    """Put together as ESPnet's `asr_inference` does it."""
    edge = VOCABULARY - 1
    weight = decoding.ctc_weight
    assert weight is not None
    return searches.BeamSearch(
        scorers={
            "decoder": model.decoder,
            "ctc": searches.CTCPrefixScorer(ctc=model.ctc, eos=edge),
            "length_bonus": searches.LengthBonus(VOCABULARY),
        },
        weights={"decoder": 1 - weight, "ctc": weight, "length_bonus": decoding.penalty},
        beam_size=decoding.beam_size,
        vocab_size=VOCABULARY,
        sos=edge,
        eos=edge,
        pre_beam_score_key=None if weight == 1 else "full",
    ).eval()


def _assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    """What CTC holds for impossible is found in any order, so that it is left out."""
    found, expected = ([h for h in hs if h.score > -1e6] for hs in (found, expected))
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("ctc_weight", "penalty"), [(0.0, 0.0), (0.3, 0.0), (0.6, 0.7), (1.0, 0.0)]
)
def test_a_wide_beam_finds_the_best_of_all_transcripts(ctc_weight: float, penalty: float) -> None:
    recogniser = _lively(vocabulary=4)  # the blank, two tokens and the boundary
    decoding = Decoding(beam_size=400, ctc_weight=ctc_weight, penalty=penalty, maxlenratio=-5)
    memory, lengths = _memory(2, batch=2, frames=7), torch.tensor([7, 4])
    found = _found(recogniser, memory, lengths, decoding)
    for row, length in enumerate(lengths.tolist()):
        scores = _scores_of_all(recogniser, memory[row, :length], decoding)
        possible = {tuple(h.tokens): h.score for h in found[row] if h.score > -1e6}
        complete = {tokens: score for tokens, score in possible.items() if len(tokens) < 5}
        assert complete == pytest.approx({t: scores[t] for t in complete}, abs=1e-5)
        assert max(complete, key=complete.__getitem__) == max(scores, key=scores.__getitem__)
        assert len(complete) == sum(score > -1e6 for score in scores.values())


def _scores_of_all(
    recogniser: Recogniser, memory: Tensor, decoding: Decoding
) -> dict[tuple[int, ...], float]:
    """Score of each transcript of up to four tokens, the decoder given it all at once."""
    decoder, ctc = recogniser.decoder, recogniser.ctc
    assert isinstance(decoder, AttentionDecoder)
    assert ctc is not None
    scores = {}
    allowed = (0, 1, 2) if decoding.ctc_weight == 0 else (1, 2)
    for count in range(5):
        for tokens in itertools.product(allowed, repeat=count):
            given = torch.tensor([[decoder.boundary, *tokens]])
            with torch.no_grad():
                logits = decoder(memory[None], torch.tensor([len(memory)]), given)[0]
                by_ctc = _ctc_log_probability(ctc.log_probabilities(memory[None])[0], list(tokens))
            steps = logits.double().log_softmax(dim=-1)
            wanted = torch.tensor([*tokens, decoder.boundary])
            by_attention = steps.gather(1, wanted[:, None]).sum().item()
            weight = decoding.ctc_weight
            assert weight is not None
            score = (1 - weight) * by_attention + decoding.penalty * (count + 1)
            scores[tokens] = score + (weight * max(by_ctc, -1e10) if weight else 0.0)
    return scores


def test_prefix_scores_are_sums_over_all_transcripts_that_begin_so() -> None:
    frames, vocabulary = 5, 4
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, frames, vocabulary, generator=generator).mul(2)
    scores[:, :, 3] = -100.0  # the boundary, which CTC never writes
    scores = scores.log_softmax(dim=-1)
    lengths = torch.tensor([5, 3])
    scorer = CTCPrefixScorer(scores, lengths, beam_size=2, boundary=3)
    every = torch.arange(vocabulary).expand(2, 2, vocabulary)
    prefixes: list[list[list[int]]] = [[[], []], [[], []]]
    steps = [([[0, 0], [0, 0]], [[1, 2], [2, 1]]), ([[1, 1], [0, 1]], [[2, 1], [2, 2]]),
             ([[0, 1], [1, 0]], [[1, 2], [1, 2]])]  # fmt: skip
    whole = [_whole_transcripts(scores[row, : lengths[row]]) for row in range(2)]
    for step in range(len(steps) + 1):
        found = scorer.score(every).exp()
        for row, slot, token in itertools.product(range(2), range(2), range(vocabulary)):
            begin = tuple(prefixes[row][slot])
            if token == 3:
                expected = whole[row].get(begin, 0.0)
            else:
                begin = (*begin, token)
                expected = sum(p for t, p in whole[row].items() if t[: len(begin)] == begin)
            assert found[row, slot, token].item() == pytest.approx(expected, rel=1e-6, abs=1e-12)
        if step < len(steps):
            parents, tokens = steps[step]
            scorer.advance(torch.tensor(parents), torch.tensor(tokens))
            prefixes = [
                [[*prefixes[row][parents[row][slot]], tokens[row][slot]] for slot in range(2)]
                for row in range(2)
            ]


def _whole_transcripts(scores: Tensor) -> dict[tuple[int, ...], float]:
    """The probability of each transcript of tokens 1 and 2 that fits, scores `(T, V)`."""
    found = {}
    for count in range(len(scores) + 1):
        for tokens in itertools.product((1, 2), repeat=count):
            probability = torch.tensor(_ctc_log_probability(scores, list(tokens))).exp().item()
            if probability > 0:
                found[tokens] = probability
    return found


def test_scores_stay_exact_over_a_thousand_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 1000, 6, generator=generator).mul(6).log_softmax(dim=-1)
    tokens = torch.randint(1, 5, (60,), generator=generator).tolist()
    scorer = CTCPrefixScorer(scores, torch.tensor([1000]), beam_size=1, boundary=5)
    for token in tokens:
        scorer.advance(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[token]]))
    found = scorer.score(torch.tensor([[[5]]])).item()
    assert found == pytest.approx(_ctc_log_probability(scores[0], tokens), rel=1e-9)
    assert found < -1000


def test_ctc_has_its_usual_say_where_none_is_chosen() -> None:
    recogniser = _lively()
    usual = _found(recogniser, _memory(), LENGTHS, Decoding(ctc_weight=0.3))
    assert _found(recogniser, _memory(), LENGTHS, Decoding()) == usual


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
def test_a_batch_that_takes_too_much_memory_is_searched_in_parts(
    ctc_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, decoding = _lively(), Decoding(beam_size=3, ctc_weight=ctc_weight)
    together = _found(recogniser, _memory(), LENGTHS, decoding)
    sizes = []
    search = beam_search_module._search

    def spy(decoder: Any, ctc: Any, memory: Tensor, *rest: Any) -> Any:
        sizes.append(len(memory))
        return search(decoder, ctc, memory, *rest)

    monkeypatch.setattr(beam_search_module, "_search", spy)
    monkeypatch.setattr(beam_search_module, "BEAM_VALUES", 1)
    apart = _found(recogniser, _memory(), LENGTHS, decoding)
    assert sizes == [1, 1, 1, 1]
    for found, expected in zip(apart, together, strict=True):
        _assert_same(found, expected)


def test_what_is_too_short_is_searched_again_with_a_lower_minimum() -> None:
    recogniser = _lively()
    decoder = recogniser.decoder
    assert isinstance(decoder, AttentionDecoder)
    with torch.no_grad():
        decoder.output.bias[decoder.boundary] += 100  # it says nothing
    for minimum in (0.9, -3):
        decoding = Decoding(beam_size=1, ctc_weight=0.0, minlenratio=minimum)
        found = _found(recogniser, _memory(), LENGTHS, decoding)
        assert [[h.tokens for h in hypotheses] for hypotheses in found] == [[[]]] * 4
