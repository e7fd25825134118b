"""The optimiser does what torch's AdamW and clipping do to each weight, and goes on where it was."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from study.training.config import TrainingConfig
from study.training.optimiser import Optimiser

TRAINING = TrainingConfig(weight_decay=0.1, decoder_learning_rate_scale=0.3)


def _network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(5, 7), nn.Conv2d(3, 4, 3)).to(
                memory_format=torch.channels_last  # type: ignore[call-overload]
            ),
            "decoder": nn.Linear(7, 3),
        }
    )


def _learn(network: nn.Module, seed: int) -> None:
    """Give each weight a gradient."""
    torch.manual_seed(seed)
    terms = [(torch.randn_like(weight) * weight).sum() for weight in network.parameters()]
    torch.stack(terms).sum().backward()


def _weights(network: nn.Module) -> list[Tensor]:
    return [weight.detach().clone() for weight in network.parameters()]


def test_a_step_is_that_of_torchs_adamw_with_clipped_gradients() -> None:
    network, reference = _network(), _network()
    optimiser = Optimiser(network, TRAINING)
    theirs = torch.optim.AdamW(
        [
            {
                "params": [weight],
                "scale": 0.3 if name.startswith("decoder.") else 1.0,
                "weight_decay": 0.1 if weight.dim() > 1 else 0.0,
            }
            for name, weight in reference.named_parameters()
        ]
    )
    for number, learning_rate in enumerate((1e-2, 3e-3, 2e-2)):
        optimiser.clear()
        theirs.zero_grad()
        for each in (network, reference):
            _learn(each, number)
        norm = optimiser.clip(1.0)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(reference.parameters(), 1.0))
        optimiser.step(learning_rate)
        for group in theirs.param_groups:
            group["lr"] = learning_rate * group["scale"]
        theirs.step()
        torch.testing.assert_close(_weights(network), _weights(reference))


def test_a_step_that_is_skipped_leaves_weights_and_memory_alone() -> None:
    network, spared = _network(), _network()
    optimisers = [Optimiser(each, TRAINING) for each in (network, spared)]
    for number, skip in enumerate((0.0, 1.0, 0.0)):
        for each, optimiser in zip((network, spared), optimisers, strict=True):
            if each is spared and skip:
                continue
            optimiser.clear()
            _learn(each, number)
            before = _weights(each)
            optimiser.step(1e-2, skip=torch.tensor(skip))
            if skip:
                torch.testing.assert_close(_weights(each), before, atol=0, rtol=0)
    torch.testing.assert_close(_weights(network), _weights(spared), atol=0, rtol=0)


def test_what_is_kept_in_a_checkpoint_is_enough_to_go_on() -> None:
    networks = [_network(), _network()]
    first, second = (Optimiser(network, TRAINING) for network in networks)
    for number in range(2):
        first.clear()
        _learn(networks[0], number)
        first.step(1e-2)
    second.load_state_dict(deepcopy(first.state_dict()))  # as one that was written and read
    networks[1].load_state_dict(networks[0].state_dict())
    for network, optimiser in zip(networks, (first, second), strict=True):
        optimiser.clear()
        _learn(network, 9)
        optimiser.step(1e-2)
    torch.testing.assert_close(_weights(networks[0]), _weights(networks[1]), atol=0, rtol=0)


def test_a_weight_without_a_gradient_decays_and_no_more() -> None:
    network = _network()
    optimiser = Optimiser(network, TRAINING)
    before = _weights(network)
    optimiser.clear()
    optimiser.step(1e-2)
    for weight, old in zip(network["encoder"].parameters(), before, strict=False):
        decay = 1 - 1e-2 * 0.1 if weight.dim() > 1 else 1.0
        torch.testing.assert_close(weight.detach(), old * decay)
