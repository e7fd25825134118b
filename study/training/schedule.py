"""The learning rate over a trial: a rise, a plateau, a fall (Hu et al. 2024, arXiv 2404.06395).

A long warm-up or a decay that spans the budget would rank trials at a rung by how soon they warm
up; on a plateau, a trial at half its budget is trained as far as it can be by then.
"""

from __future__ import annotations


def rate_scale(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """The learning rate of update `step` (from 0) of `steps`, in units of the peak.

    `warmup` and `decay` are shares of the budget.
    """
    rise = warmup * steps
    fall = decay * steps
    scale = 1.0
    if rise > 0:
        scale = min(scale, (step + 1) / rise)
    if fall > 0:
        scale = min(scale, (steps - step) / fall)
    return scale
