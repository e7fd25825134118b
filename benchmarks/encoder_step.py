"""One training step of Conformer encoders side by side: ours and those of three libraries.

    python benchmarks/encoder_step.py                  # CPU, one thread: 6 × 144 and 12 × 256
    python benchmarks/encoder_step.py --device cuda
    python benchmarks/encoder_step.py --device cuda --compile   # ours and ESPnet's layers compiled

A step is forward, CTC loss, backward and an AdamW update on the same random batch (4 utterances of
400 frames × 80 mels, 30 labels of 500), dropout 0.1, convolution kernel 31, 4 heads, feed-forward 4
× width. All models live in one process and take turns; a ratio is between the times of one round,
and the median over rounds is reported with its quartiles, so that a noisy machine disturbs all
alike. On the CPU times are those of the process, not of the clock.

Every encoder has the same kind of front block (two 3×3 convolutions of stride 2, as wide as the
encoder) and the same output layer. torchaudio's blocks have no positions at all; transformers' are
relative.

Prints a JSON line for each model and writes benchmarks/results/encoder_step-<hardware>.json (or
encoder_step-compiled-…). `times_floor` is a step's time in units of that of its floating-point
operations, of forward and twice that for backward, at the rate of a large matrix product. Peers
that are not installed are left out:
    pip install --no-deps espnet typeguard packaging; pip install transformers
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # when run as a file

from benchmarks import measuring
from model.config import NetworkConfig
from model.encoder import ConformerEncoder
from model.subsampling import Conv2dSubsampling, subsampled_length

UTTERANCES, FRAMES, MELS, LABELS, VOCABULARY = 4, 400, 80, 30, 500
HEADS, KERNEL, DROPOUT = 4, 31, 0.1
SIZES = {"small": (6, 144), "base": (12, 256)}


class Ours(nn.Module):
    """This project's encoder."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        config = NetworkConfig(
            encoder_layers=layers, encoder_dim=dim, attention_heads=HEADS, conv_kernel_size=KERNEL,
            dropout=DROPOUT, attention_dropout=DROPOUT, positional_dropout=DROPOUT,
        )  # fmt: skip
        self.encoder = ConformerEncoder(config, MELS)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, T', D)`."""
        return self.encoder(features, lengths)[0]


class Espnet(nn.Module):
    """ESPnet's `ConformerEncoder`, as in its LibriSpeech recipes."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        with contextlib.redirect_stdout(sys.stderr):
            from espnet2.asr.encoder.conformer_encoder import ConformerEncoder as Encoder
        self.encoder = Encoder(
            input_size=MELS, output_size=dim, attention_heads=HEADS, linear_units=4 * dim,
            num_blocks=layers, dropout_rate=DROPOUT, positional_dropout_rate=DROPOUT,
            attention_dropout_rate=DROPOUT, input_layer="conv2d", macaron_style=True,
            rel_pos_type="latest", pos_enc_layer_type="rel_pos",
            selfattention_layer_type="rel_selfattn", activation_type="swish",
            use_cnn_module=True, cnn_module_kernel=KERNEL,
        )  # fmt: skip

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, T', D)`."""
        return self.encoder(features, lengths)[0]


class Torchaudio(nn.Module):
    """`torchaudio.models.Conformer` behind our front block."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        from torchaudio.models import Conformer

        self.front = Conv2dSubsampling(MELS, dim, dim)
        self.encoder = Conformer(dim, HEADS, 4 * dim, layers, KERNEL, dropout=DROPOUT)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, T', D)`."""
        return self.encoder(self.front(features), subsampled_length(lengths))[0]


class Transformers(nn.Module):
    """`Wav2Vec2ConformerEncoder` of transformers behind our front block."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        from transformers import Wav2Vec2ConformerConfig
        from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as modeling

        config = Wav2Vec2ConformerConfig(
            hidden_size=dim, num_hidden_layers=layers, num_attention_heads=HEADS,
            intermediate_size=4 * dim, hidden_act="swish", position_embeddings_type="relative",
            conv_depthwise_kernel_size=KERNEL, hidden_dropout=DROPOUT, attention_dropout=DROPOUT,
            activation_dropout=DROPOUT, conformer_conv_dropout=DROPOUT, layerdrop=0.0,
        )  # fmt: skip
        self.front = Conv2dSubsampling(MELS, dim, dim)
        self.encoder = modeling.Wav2Vec2ConformerEncoder(config)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features `(B, T, F)` -> `(B, T', D)`."""
        x = self.front(features)
        valid = torch.arange(x.shape[1], device=x.device) < subsampled_length(lengths).unsqueeze(1)
        return self.encoder(x, attention_mask=valid).last_hidden_state


PEERS: dict[str, Callable[[int, int], nn.Module]] = {
    "ours": Ours,
    "espnet": Espnet,
    "torchaudio": Torchaudio,
    "transformers": Transformers,
}


class Step:
    """A model with its optimiser, ready to make a training step."""

    def __init__(self, encoder: nn.Module, dim: int, device: torch.device) -> None:
        self.encoder = encoder.to(device).train()
        self.output = nn.Linear(dim, VOCABULARY).to(device)
        parameters = [*self.encoder.parameters(), *self.output.parameters()]
        self.parameters = sum(p.numel() for p in parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def __call__(self, features: Tensor, lengths: Tensor, targets: Tensor) -> None:
        """Forward, loss, backward, update."""
        memory = self.encoder(features, lengths)
        log_probabilities = self.output(memory).float().log_softmax(dim=-1).transpose(0, 1)
        loss = nn.functional.ctc_loss(
            log_probabilities,
            targets,
            subsampled_length(lengths),
            torch.full((UTTERANCES,), LABELS, device=targets.device),
            zero_infinity=True,
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()


LAYERS = {"ours": "blocks", "espnet": "encoders"}
"""Where the layers of an encoder are, of those that are compared compiled."""


def measure(
    size: str, device: torch.device, rounds: int, backend: str | None = None
) -> list[dict[str, Any]]:
    """The seconds of a step of each peer that is installed, in turns.

    With a backend of `torch.compile`, of those in `LAYERS` alone, each layer compiled by itself.
    """
    layers, dim = SIZES[size]
    torch.manual_seed(0)
    steps: dict[str, Step] = {}
    for name, make in PEERS.items():
        if backend is not None and name not in LAYERS:
            continue
        try:
            steps[name] = Step(make(layers, dim), dim, device)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        if backend is not None:
            for layer in getattr(steps[name].encoder.encoder, LAYERS[name]):
                layer.compile(dynamic=False, backend=backend)
    batch = (
        torch.randn(UTTERANCES, FRAMES, MELS, device=device),
        torch.full((UTTERANCES,), FRAMES, device=device),
        torch.randint(1, VOCABULARY, (UTTERANCES, LABELS), device=device),
    )
    for step in steps.values():
        for _ in range(2):
            step(*batch)
    turns = {name: functools.partial(step, *batch) for name, step in steps.items()}
    seconds = measuring.take_turns(turns, rounds, device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        steps["ours"].encoder.eval()(*batch[:2])
    floor = measuring.device_rates(device, torch.float32).floor(
        flops=3 * counter.get_total_flops(), traffic=0.0
    )
    return [{**_summary(name, size, steps[name], seconds),
             "times_floor": statistics.median(seconds[name]) / floor}
            for name in steps]  # fmt: skip


def _summary(name: str, size: str, step: Step, seconds: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": name,
        "size": size,
        "parameters": step.parameters,
        "median_seconds": statistics.median(seconds[name]),
        "rounds": len(seconds[name]),
    }
    for peer in ("espnet", "torchaudio"):
        if peer in seconds:
            ratios = [a / b for a, b in zip(seconds[name], seconds[peer], strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            row[f"ratio_to_{peer}"] = median
            row[f"ratio_to_{peer}_quartiles"] = [low, high]
    if "ratio_to_espnet" in row:
        row["cpu_ratio_to_espnet"] = row["ratio_to_espnet"]
    return row


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    parser.add_argument("--backend", default="inductor", help="that compiles them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    backend = arguments.backend if arguments.compile else None
    rows = []
    for size in arguments.sizes:
        for row in measure(size, device, arguments.rounds, backend):
            if device.type == "cuda":
                row.pop("cpu_ratio_to_espnet", None)
            rows.append(row)
            print(json.dumps(row), flush=True)
    name = "encoder_step-compiled" if arguments.compile else "encoder_step"
    measuring.write_results(
        name, arguments.device, rows, packages=["espnet", "transformers"], backend=backend
    )


if __name__ == "__main__":
    main()
