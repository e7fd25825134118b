"""What a network costs, against torch's own counter and without its price."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import NetworkConfig
from model.counting import cost, forward_flops
from model.recogniser import Recogniser
from tests.model.test_config import BASE, CASES


def _counted(config: NetworkConfig, *, mels: int, vocabulary: int, frames: int, tokens: int) -> int:
    """FLOPs by `torch.utils.flop_counter`, which runs the network."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        recogniser = Recogniser(config, mels=mels, vocabulary=vocabulary).eval()
        features, lengths = torch.empty(1, frames, mels), torch.full((1,), frames)
        memory, lengths = recogniser.encode(features, lengths, ragged=False)
        recogniser.decoder(memory, lengths, torch.zeros(1, tokens, dtype=torch.long))
        if recogniser.ctc is not None:
            recogniser.ctc.log_probabilities(memory)
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("name", "needed", "value"), CASES)
def test_flops_are_those_that_torch_counts(name: str, needed: dict[str, Any], value: Any) -> None:
    config = replace(BASE, **needed, **{name: value})
    for frames, tokens in ((61, 5), (100, 1)):
        sizes = {"mels": 21, "vocabulary": 12, "frames": frames, "tokens": tokens}
        assert forward_flops(config, **sizes) == _counted(config, **sizes)


def test_counting_is_per_second_of_speech() -> None:
    config = replace(BASE, stochastic_depth=0.5)  # no block is skipped when it is counted
    found = cost(config, mels=20, vocabulary=12, seconds=2.5, tokens_per_second=4)
    flops = forward_flops(config, mels=20, vocabulary=12, frames=250, tokens=10)
    assert found.flops_per_second == flops / 2.5
    assert found.parameters == sum(found.parts.values())
    built = Recogniser(config, mels=20, vocabulary=12)
    assert found.parameters == sum(p.numel() for p in built.parameters())


def test_counting_does_not_import_a_compiler() -> None:
    code = (
        "import sys\n"
        "from model.config import NetworkConfig\n"
        "from model.counting import cost\n"
        "for decoder in ('attention', 'transducer'):\n"
        "    cost(NetworkConfig(decoder=decoder), mels=80, vocabulary=100)\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
