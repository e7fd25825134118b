"""Simulated studies: Optuna studies on real SQLite files, filled by a formula instead of training.

    simulated = fill(create_empty(tmp_path), explore=12, refine=8)
    files = reports.write(simulated.storage, simulated.name, tmp_path / "report")

The formula knows the truth (`true_wer`): depth and width of the encoder matter, the kernel a
little, the rest not at all.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from reports.record import StudyRecord, read_study

SEARCH: dict[str, dict[str, Any]] = {
    "encoder_layers": {"low": 1, "high": 4, "role": "scientific"},
    "encoder_dim": {"choices": [32, 48, 64, 96], "role": "scientific"},
    "attention_heads": {"choices": [1, 2, 4], "role": "scientific"},
    "conv_kernel_size": {"choices": [3, 7, 15, 31], "role": "scientific"},
    "decoder_layers": {"low": 1, "high": 2, "role": "scientific"},
    "decoder_dim": {"choices": [32, 64, 96], "role": "scientific"},
    "learning_rate": {"low": 5e-4, "high": 5e-3, "log": True, "role": "nuisance"},
}
ANCHORS: dict[str, dict[str, float]] = {
    "conformer-s": {
        "encoder_layers": 4,
        "encoder_dim": 64,
        "attention_heads": 4,
        "conv_kernel_size": 31,
        "decoder_layers": 1,
        "decoder_dim": 96,
        "learning_rate": 1e-3,
    },
    "espnet-ksponspeech": {
        "encoder_layers": 3,
        "encoder_dim": 96,
        "attention_heads": 4,
        "conv_kernel_size": 31,
        "decoder_layers": 2,
        "decoder_dim": 96,
        "learning_rate": 2e-3,
    },
}
EVALUATIONS = 8
TEXT = "the quick brown fox jumps over a lazy dog while seven ships sail north"


@dataclass(frozen=True, kw_only=True)
class SimulatedStudy:
    """Where a simulated study lies."""

    storage: str
    name: str
    trials_folder: Path
    study: optuna.Study


def choices_of(name: str) -> list[int]:
    entry = SEARCH[name]
    return list(entry.get("choices") or range(entry["low"], entry["high"] + 1))


def distributions(params: dict[str, float]) -> dict[str, BaseDistribution]:
    """Return the space of the search, widened where an anchor lies outside of it."""
    spaces: dict[str, BaseDistribution] = {
        name: IntDistribution(
            int(min(*choices_of(name), params[name])), int(max(*choices_of(name), params[name]))
        )
        for name in SEARCH
        if name != "learning_rate"
    }
    return spaces | {"learning_rate": FloatDistribution(5e-4, 5e-3, log=True)}


def draw(rng: random.Random) -> dict[str, float]:
    params: dict[str, float] = {
        name: rng.choice(choices_of(name)) for name in SEARCH if name != "learning_rate"
    }
    return params | {"learning_rate": math.exp(rng.uniform(math.log(5e-4), math.log(5e-3)))}


def shape_with(**changes: float) -> dict[str, float]:
    """Return the values of `conformer-s`, save for some."""
    return {**ANCHORS["conformer-s"], **changes}


def true_wer(params: dict[str, float]) -> float:
    wer: float = (
        0.08
        + 0.05 * (4 - params["encoder_layers"])
        + 0.6 / params["encoder_dim"] ** 0.5
        + 0.01 * abs(math.log2(params["conv_kernel_size"] / 15))
        + 0.02 * math.log(params["learning_rate"] / 1.5e-3) ** 2
    )
    return wer


def config() -> dict[str, Any]:
    return {
        "name": "laptop",
        "corpus": {"kind": "synthetic"},
        "features": {"mels": 80},
        "network": {"decoder": "attention", "dropout": 0.1},
        "training": {"epochs": EVALUATIONS},
        "search": SEARCH,
        "anchors": list(ANCHORS),
        "explore": {"trials": 14},
        "refine": {"trials": 8, "sampler": "tpe"},
        "seed": 0,
        "storage": "postgresql://tuner:hunter2@db.example/studies",
    }


def corpus() -> dict[str, Any]:
    return {
        "kind": "synthetic",
        "fingerprint": "9f2c61d0a8b1",
        "splits": {
            "train": {"utterances": 960, "hours": 0.62, "speakers": 24, "words": 5210},
            "dev": {"utterances": 120, "hours": 0.08, "speakers": 6, "words": 655},
            "test": {"utterances": 120, "hours": 0.08, "speakers": 6, "words": 671},
        },
        "warnings": ["3 utterances are shorter than 0.3 s and were left out."],
    }


def simulated_trial(
    params: dict[str, float],
    rng: random.Random,
    *,
    outcome: str = "finished",
    phase: str = "explore",
    anchor: str | None = None,
    wer: float | None = None,
    **attributes: Any,
) -> FrozenTrial:
    """Return a trial as the study would have stored it."""
    wer = max(0.0, true_wer(params) + rng.gauss(0, 0.008)) if wer is None else wer
    done = {"pruned": 3, "crashed": 1, "diverged": 2, "out_of_memory": 0}.get(outcome, EVALUATIONS)
    per_epoch = 4 + params["encoder_layers"] * params["encoder_dim"] / 20
    history = [
        {
            "evaluation": i,
            "step": 40 * i,
            "epoch": float(i),
            "train_loss": 0.2 + 3 * math.exp(-0.5 * i),
            "dev_loss": 0.3 + wer + 3 * math.exp(-0.5 * i),
            "wer": wer if i == EVALUATIONS else wer + math.exp(-0.55 * i) * (1.2 - wer),
            "ctc_wer": 1.1 * wer,
            "cer": 0.4 * wer,
            "learning_rate": params["learning_rate"],
            "train_seconds": per_epoch,
            "evaluate_seconds": 0.8,
        }
        for i in range(1, done + 1)
    ]
    found: dict[str, Any] = {
        "phase": phase,
        "seed": rng.randrange(2**31),
        "config": {**params, "dropout": 0.1, "decoder": "attention"},
        "outcome": outcome,
        "device": "cpu",
        "worker": "host:1",
        "parameters": int(
            params["encoder_layers"] * params["encoder_dim"] ** 2 * 22
            + params["decoder_layers"] * params["decoder_dim"] ** 2 * 16
        ),
        "flops_per_second": 1e7 * params["encoder_layers"] * params["encoder_dim"],
        "train_seconds": per_epoch * done * rng.uniform(0.95, 1.05),
        "evaluate_seconds": 0.8 * done,
        "peak_memory_bytes": None,
        "evaluations": history,
        **({"anchor": anchor} if anchor else {}),
        **attributes,
    }
    penalty = outcome in ("diverged", "out_of_memory")
    states = {"pruned": TrialState.PRUNED, "crashed": TrialState.FAIL}
    state = states.get(outcome, TrialState.COMPLETE)
    return create_trial(
        state=state,
        value=(1.0 if penalty else wer) if state is TrialState.COMPLETE else None,
        params=params,
        distributions=distributions(params),
        user_attrs=found,
        intermediate_values={i + 1: item["wer"] for i, item in enumerate(history)},
        constraints={"fits": 1.0} if penalty else None,
    )


def search_depth_alone(study: optuna.Study, **also: dict[str, Any]) -> None:
    """Have a study search depth and learning rate, and hold the rest at that of `conformer-s`."""
    search = {name: SEARCH[name] for name in ("encoder_layers", "learning_rate")} | also
    network = {name: value for name, value in ANCHORS["conformer-s"].items() if name not in search}
    study.set_user_attr("config", {**config(), "search": search, "network": network})


def write_transcripts(folder: Path, rng: random.Random) -> None:
    """Write a hypotheses.jsonl as a trial does."""
    words = TEXT.split()
    folder.mkdir(parents=True)
    with (folder / "hypotheses.jsonl").open("w", encoding="utf-8") as file:
        for i in range(40):
            reference = rng.choices(words, k=rng.randint(4, 12))
            heard = []
            for word in reference:
                luck = rng.random()
                heard += [] if luck < 0.05 else [rng.choice(words)] if luck < 0.15 else [word]
                heard += ["um"] if luck > 0.96 else []
            line = {
                "id": f"dev-{i:03d}",
                "reference": " ".join(reference),
                "hypothesis": " ".join(heard),
                "ctc_hypothesis": " ".join(heard),
                "words": len(reference),
            }
            file.write(json.dumps(line) + "\n")


def record_of(trials: Sequence[FrozenTrial], words: int = 655, **settings: Any) -> StudyRecord:
    """Return the record of a study in memory with these trials: `words` in dev, other `settings`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="laptop", direction="minimize")
    about = corpus()
    about["splits"]["dev"]["words"] = words
    study.set_user_attr("corpus", about)
    refine = {"trials": 8, "pruner": "successive_halving", "first_rung": 0.25}
    told = {
        "training": {"evaluations": EVALUATIONS, "decay": 0.25},
        "refine": {**refine, "reduction_factor": 2},
    }
    study.set_user_attr("config", {**config(), **told, **settings})
    study.add_trials(trials)
    return read_study(storage, "laptop")


def create_empty(folder: Path) -> SimulatedStudy:
    """Create a study on a new SQLite file, with all that is stored before the first trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{folder}/study.db"
    study = optuna.create_study(storage=storage, study_name="laptop", direction="minimize")
    for key, value in {
        "config": config(),
        "corpus": corpus(),
        "versions": {"python": "3.11.9", "torch": "2.11.0", "optuna": "5.0.0", "study": "0.1.0"},
        "git_commit": "4be1c0ffee",
        "hardware": "2 × x86 cores, 16 GiB",
    }.items():
        study.set_user_attr(key, value)
    return SimulatedStudy(
        storage=storage, name="laptop", trials_folder=folder / "trials", study=study
    )


def fill(
    empty: SimulatedStudy, explore: int = 12, refine: int = 8, mishaps: bool = False
) -> SimulatedStudy:
    """Add trials, and the transcripts of the best one; return the same study.

    `explore` counts the two anchors. Every third refine trial is pruned. With `mishaps`, one
    trial each has diverged, run out of memory and crashed.
    """
    rng = random.Random(7)
    anchors = list(ANCHORS.items())[:explore]
    trials = [simulated_trial(params, rng, anchor=name) for name, params in anchors]
    trials += [simulated_trial(draw(rng), rng) for _ in range(explore - len(trials))]
    for i in range(refine):
        params = min((draw(rng) for _ in range(4)), key=true_wer)
        outcome = "pruned" if i % 3 == 1 else "finished"
        trials.append(simulated_trial(params, rng, phase="refine", outcome=outcome))
    if mishaps:
        error = "The loss became infinite at step 80.\nTraceback (most recent call last):\n  …"
        trials.append(simulated_trial(draw(rng), rng, outcome="diverged", error=error))
        trials.append(simulated_trial(draw(rng), rng, outcome="out_of_memory"))
        error = "OSError: no space left on device\n  File 'x.py', line 1"
        trials.append(simulated_trial(draw(rng), rng, outcome="crashed", error=error))
    empty.study.add_trials(trials)
    results = [trial for trial in empty.study.trials if not trial.constraints]
    results = [trial for trial in results if trial.state is TrialState.COMPLETE]
    if results:
        best = min(results, key=lambda trial: trial.value or 0.0)
        write_transcripts(empty.trials_folder / str(best.number), rng)
    return empty
