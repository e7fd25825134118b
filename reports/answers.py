"""`answers.json`: the report for programs.

    answers = json.loads(Path("runs/laptop/report/answers.json").read_text())
    {q["name"]: (q["recommended"], q["verdict"]) for q in answers["questions"]}

WERs and differences of WERs are fractions, values are numbers, and what is not known is null. Keys
are only ever added under one `schema`; `docs/answers.schema.json` describes each of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from reports.answer import AnchorResult, Answer, BestTrial
from reports.comparison import ComparisonData
from reports.finals import FinalistResult
from reports.landscape import Landscape
from reports.record import StudyRecord
from reports.trust import Check
from reports.verdicts import ValueEffect, Verdict

SCHEMA = "conformer-study/answers/1"


@dataclass(frozen=True, kw_only=True)
class QuestionAnswer:
    """The answer to one question."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    name: str
    """The hyperparameter, as in study.yaml."""
    text: str
    """The question in words."""
    verdict: str
    """decided, leaning, undecided, at the edge, no effect seen, or not asked."""
    headline: str
    """Value and verdict in a few words, and where the best trial has another value, that:
    4 (leaning; the best trial has 6)."""
    sentence: str
    """The answer in words."""
    advice: str
    """What is cheapest, or what would settle it; may be empty."""
    recommended: float | None
    """The value with the lowest expected WER, the others averaged."""
    as_good: list[float]
    """The values that cannot be told from it, itself among them."""
    cheapest_parameters: float | None
    """Of those, the one with the fewest weights where all else is alike; null where the results do
    not tell."""
    cheapest_seconds: float | None
    """Likewise the one that trains in the least time."""
    worst: float | None
    """The value with the highest expected WER."""
    gain: float | None
    """Expected WER of the worst value above that of the recommended one."""
    gain_low: float | None
    """Lower end of its 95 % interval."""
    gain_high: float | None
    """Upper end of its 95 % interval."""
    spread_bound: float | None
    """With 95 % probability all values lie within this of one another."""
    needed_trials: int | None
    """About how many finished trials would decide it; null where `advice` says otherwise."""
    effects: list[ValueEffect]
    """Per value of the range, ascending."""


@dataclass(frozen=True, kw_only=True)
class FinalistComparison:
    """A finalist against the winner, on the utterances of test that all finalists decoded."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    label: str
    """The finalist's, as in `finalists`."""
    difference: float
    """Its WER minus the winner's, means over their seeds."""
    low: float
    """Lower end of its 95 % interval, over speakers (or utterances) and seeds."""
    high: float
    """Upper end of its 95 % interval."""
    p: float
    """Of that difference, corrected by Holm over all finalists."""
    mapsswe_p: float | None
    """Of NIST's matched-pairs test between the best seeds of both on dev, corrected likewise."""
    conclusion: str
    """In words: worse than the winner, better than the winner, or no difference shown."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the report says: its first screen, its tests between finalists, and its checks."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    schema: str
    """Name and version of this description."""
    study: str
    """The study's name."""
    sentence: str
    """The winner against the anchors, in words."""
    best: BestTrial | None
    """The winner's seed with the lowest dev WER; before any finalist, the lowest of all trials.
    Null without results."""
    finalists: list[FinalistResult]
    """Configurations that were trained again and scored on test, the winner first."""
    comparisons: list[FinalistComparison]
    """Every other finalist against the winner; empty where they could not be compared."""
    anchors: list[AnchorResult]
    """The study's reference points."""
    trials: dict[str, int]
    """Trials by outcome."""
    seed_spread: float | None
    """Standard deviation of WER between seeds of one configuration, null where not measured. A
    reading for which a finalist was chosen is not counted."""
    questions: list[QuestionAnswer]
    """The six, in their order."""
    effects_from: int
    """Trials that the effects are read from; 0 where they could not be estimated."""
    prediction_rank_correlation: float | None
    """Spearman's, between trials' WERs and what all other trials predict for them."""
    prediction_explained: float | None
    """Share of the variance of WER that this prediction explains."""
    checks: list[Check]
    """Whether the study can be believed: the gravest check first."""
    train_seconds: float
    """Training of all trials together, on `hardware`, one worker beside another."""
    evaluate_seconds: float
    """Decoding of dev by all trials together."""
    corpus_fingerprint: str | None
    """Names the audio and the transcripts."""
    git_commit: str | None
    """The code that ran the study."""
    hardware: str | None
    """The machine."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the libraries."""


def answers_data(
    record: StudyRecord,
    answer: Answer,
    verdicts: tuple[Verdict, ...],
    landscape: Landscape | str,
    comparison: ComparisonData,
    checks: tuple[Check, ...],
) -> Answers:
    """Return the answers of a study."""
    from reports.card import card_data, headline

    fitted = None if isinstance(landscape, str) else landscape
    fingerprint = record.corpus.get("fingerprint")
    return Answers(
        schema=SCHEMA,
        study=record.name,
        sentence=answer.sentence,
        best=answer.best,
        finalists=list(answer.finalists),
        comparisons=_comparisons(comparison),
        anchors=list(answer.anchors),
        trials=answer.counts,
        seed_spread=answer.seed_spread,
        questions=[
            QuestionAnswer(
                name=verdict.question.name,
                text=verdict.question.text,
                verdict=verdict.verdict,
                headline=headline(verdict, answer.best.values if answer.best else None),
                sentence=line.sentence,
                advice=line.advice,
                recommended=verdict.recommended,
                as_good=list(verdict.as_good),
                cheapest_parameters=verdict.cheapest_parameters,
                cheapest_seconds=verdict.cheapest_seconds,
                worst=verdict.worst,
                gain=verdict.gain,
                gain_low=verdict.gain_low,
                gain_high=verdict.gain_high,
                spread_bound=verdict.spread_bound,
                needed_trials=verdict.needed,
                effects=list(verdict.effects),
            )
            for verdict, line in zip(verdicts, card_data(verdicts), strict=True)
        ],
        effects_from=fitted.trials if fitted else 0,
        prediction_rank_correlation=fitted.rank_correlation if fitted else None,
        prediction_explained=fitted.explained if fitted else None,
        checks=list(checks),
        train_seconds=record.seconds("train_seconds"),
        evaluate_seconds=record.seconds("evaluate_seconds"),
        corpus_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        git_commit=record.git_commit,
        hardware=record.hardware,
        versions=record.versions,
    )


def _comparisons(comparison: ComparisonData) -> list[FinalistComparison]:
    return [
        FinalistComparison(
            label=opponent.finalist.label,
            difference=opponent.difference.value,
            low=opponent.difference.low,
            high=opponent.difference.high,
            p=opponent.p,
            mapsswe_p=opponent.mapsswe_p,
            conclusion=opponent.conclusion,
        )
        for opponent in comparison.opponents
        if opponent.difference is not None and opponent.p is not None
    ]


def as_json(answers: Answers) -> str:
    """Return the text of answers.json."""
    return (
        json.dumps(_finite(asdict(answers)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def schema() -> str:
    """Return the text of docs/answers.schema.json."""
    return json.dumps(TypeAdapter(Answers).json_schema(), indent=2) + "\n"


def _finite(value: Any) -> Any:
    """Return a value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
