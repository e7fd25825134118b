"""How a trial computes its steps: the rule that chooses, and what it is told.

    choice = choose("auto", Expected(steps=9000, plain=0.025, graphs=0.018, buckets=8, ...))
    choice.execution, choice.reason

Compiling pays for long trials; recording graphs costs a second or so for each bucket and pays where
a GPU waits for Python, as it does with small networks. The rule adds up what a trial would take in
each way. That the ways give the same is tested; whether the rule is right depends on its figures,
of which `COMPILED_GAIN`, `COLD_SECONDS`, `WARM_SECONDS` and `RECORDING_SECONDS` are published or
estimated ones, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.config import NetworkConfig

Execution = Literal["eager", "graphs", "compile"]

COMPILED_GAIN = 1.4
"""How much faster compiled blocks make a step (an estimate; 1.3 to 1.8 are published)."""
COLD_SECONDS = 60.0
"""To compile a block for one bucket (an estimate)."""
WARM_SECONDS = 10.0
"""The same where the cache on disk has it (an estimate)."""
RECORDING_SECONDS = 1.0
"""To record the graphs of one bucket (an estimate)."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a trial before it begins."""

    steps: int
    """Updates of the weights."""
    plain: float
    """Seconds of a step, operation by operation; measured."""
    graphs: float | None
    """Seconds of a step as graphs, measured; None where they are not possible."""
    buckets: int
    """Shapes of batches."""
    cached: bool
    """Whether blocks of this width were compiled before on this machine."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to compute, and why."""

    execution: Execution
    reason: str


def choose(expected: Expected) -> Choice:
    """The way that takes least, preparations included."""
    plain = expected.steps * expected.plain
    ready = WARM_SECONDS if expected.cached else COLD_SECONDS
    seconds: dict[Execution, float] = {
        "eager": plain,
        "compile": plain / COMPILED_GAIN + expected.buckets * ready,
    }
    if expected.graphs is not None:
        recording = expected.buckets * RECORDING_SECONDS
        seconds["graphs"] = expected.steps * expected.graphs + recording
    best = min(seconds, key=seconds.__getitem__)
    listed = ", ".join(f"{name} {seconds[name]:.0f} s" for name in seconds)
    return Choice(execution=best, reason=f"expected for the trial: {listed}")


def graphs_obstacle(network: NetworkConfig, device: str) -> str | None:
    """Why the steps of a network cannot be recorded as graphs; None if they can."""
    if device != "cuda":
        return "CUDA graphs need a CUDA device"
    if network.decoder == "transducer":
        return "the transducer's loss is cut by the lengths of a batch, which a graph cannot be"
    if network.stochastic_depth > 0:
        return "with stochastic_depth each step has other blocks, which a graph cannot have"
    return None
