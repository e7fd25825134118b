"""The settings of one training run, as they stand in study.yaml under `training`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from study.data.config import AugmentationConfig

Share = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a trial trains, measured in one of three ways."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    epochs: Annotated[float, Gt(0)] | None = None
    """Passes over the training speech."""
    steps: Annotated[int, Ge(1)] | None = None
    """Updates of the weights."""
    flops: Annotated[float, Gt(0)] | None = None
    """Floating-point operations, three times those of the forward passes: compares architectures at
    equal compute."""

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps", "flops") if getattr(self, name) is not None]
        if len(given) != 1:
            listed = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of epochs, steps and flops ({listed} given)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How every trial of a study is trained."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    budget: Budget = field(default_factory=lambda: Budget(epochs=20))
    """When training ends."""
    evaluations: Annotated[int, Ge(1)] = 10
    """Evaluations on dev, evenly spread over the budget; each ends in a checkpoint."""
    dev_share: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of dev's utterances, the same ones each time, that evaluations before the last
    recognise. The last recognises all, and alone says how good a trial is; with a share of 1 it is
    the evaluation with the lowest WER."""
    batch_seconds: Annotated[float, Gt(0)] = 120.0
    """Seconds of audio in a batch, padding included."""
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Peak learning rate of AdamW."""
    decoder_learning_rate_scale: Annotated[float, Gt(0)] = 1.0
    """The decoder's learning rate in units of `learning_rate`."""
    weight_decay: Annotated[float, Ge(0)] = 0.01
    """AdamW's decoupled weight decay of matrices; biases and norms have none."""
    warmup: Share = 0.1
    """Share of the budget over which the learning rate rises."""
    decay: Share = 0.3
    """Share of the budget, at its end, over which the learning rate falls to zero."""
    gradient_clip: Annotated[float, Gt(0)] = 5.0
    """Largest 2-norm of the gradient."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; `auto` is bfloat16 on CUDA and float32 on the CPU."""
    execution: Literal["auto", "eager", "graphs", "compile"] = "auto"
    """How steps are computed, which changes their speed and not what they give: operation by
    operation, as recorded CUDA graphs, or with compiled blocks. `auto` takes what is expected to
    be fastest for the trial, which on the CPU is `eager`."""
    deterministic: bool = False
    """The same bits each time on the same GPU, as they are on the CPU anyway: slower kernels, the
    losses of CTC and the transducer on the processor, and `execution: auto` is `eager`. The beam
    search of finalists is left out."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """SpecAugment."""

    def __post_init__(self) -> None:
        if self.warmup + self.decay > 1:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} are shares of one budget: "
                "together at most 1"
            )
