"""Even samples of surfaces of WER over the six values and the size of the network, in memory."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
from scipy.stats import qmc

from reports.questions import SIX
from reports.record import StudyRecord
from tests.reports.simulated import choices_of, record_of, simulated_trial

Formula = Callable[[dict[str, float], int], float]


def size_of(values: dict[str, float]) -> int:
    encoder = 22 * values["encoder_layers"] * values["encoder_dim"] ** 2
    return int(encoder + 16 * values["decoder_layers"] * values["decoder_dim"] ** 2)


def planted(wer: Formula, count: int = 64, seed: int = 0, noise: float = 0.005) -> StudyRecord:
    """An even sample of a surface: WER by the six values and the number of parameters."""
    rng, luck = random.Random(seed), np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # balance at powers of two
        points = qmc.Sobol(7, rng=seed).random(count)
    trials = []
    for point in points:
        lists = {name: choices_of(name) for name in SIX}
        pairs = zip(SIX, point, strict=False)
        values: dict[str, float] = {n: lists[n][int(u * len(lists[n]))] for n, u in pairs}
        values["learning_rate"] = 5e-4 * 10 ** point[6]
        size = size_of(values)
        reading = wer(values, size) + noise * luck.standard_normal()
        trials.append(simulated_trial(values, rng, wer=reading, parameters=size))
    return record_of(trials)
