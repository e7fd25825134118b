"""AdamW over a few long vectors instead of over many small tensors.

The weights of a network that are updated alike lie one after the other in one vector, and so do
their gradients. What is done to all of them (clearing, measuring, clipping, updating) is then one
operation each and not hundreds: a tenth of a training step of a small network.

    optimiser = Optimiser(recogniser, training)
    optimiser.clear()
    loss.backward()
    norm = optimiser.clip(5.0)
    optimiser.step(1e-3)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from study.training.config import TrainingConfig

ALIGNMENT = 16
"""Elements: each tensor begins at a multiple of 64 bytes, for which kernels are fastest."""


class Optimiser:
    """AdamW with weight decay on matrices alone and a learning rate of its own for the decoder.

    It moves the weights of the network, which has to be on its device already, into its vectors. A
    weight that a step does not reach counts as one with a gradient of zero.
    """

    def __init__(self, network: nn.Module, training: TrainingConfig) -> None:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            scale = training.decoder_learning_rate_scale if name.startswith("decoder.") else 1.0
            decay = training.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
        self._vectors = [_as_vector(parameters) for parameters in groups.values()]
        self._adamw = torch.optim.AdamW(
            [
                {"params": [vector], "scale": scale, "weight_decay": decay}
                for (scale, decay), vector in zip(groups, self._vectors, strict=True)
            ],
            lr=training.learning_rate,
            fused=True,
        )

    def clear(self) -> None:
        """Set all gradients to zero."""
        for gradient in self.gradients:
            gradient.zero_()

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of all weights, a vector for each group."""
        return [vector.grad for vector in self._vectors if vector.grad is not None]

    def clip(self, largest: float) -> Tensor:
        """Scale the gradients down to a 2-norm of `largest`; returns the norm before, a scalar."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in self.gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in self.gradients:
            gradient.mul_(factor)
        return norm

    def step(self, learning_rate: float, *, skip: Tensor | None = None) -> None:
        """Update the weights, unless the scalar `skip` is 1: nobody waits to find out."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self._adamw.found_inf = skip  # type: ignore[attr-defined]
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._adamw.load_state_dict(state)


def _as_vector(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Move these weights and their gradients into two vectors; returns the first with the second.

    Each weight becomes a view of its part, in the order of memory that it had.
    """
    starts, end = [], 0
    for parameter in parameters:
        starts.append(end)
        end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    vector = nn.Parameter(parameters[0].new_zeros(end))
    vector.grad = torch.zeros_like(vector)
    for parameter, start in zip(parameters, starts, strict=True):
        layout = (parameter.shape, parameter.stride(), start)
        view = vector.detach().as_strided(*layout)
        view.copy_(parameter.detach())
        parameter.data = view
        parameter.grad = vector.grad.as_strided(*layout)
    return vector
