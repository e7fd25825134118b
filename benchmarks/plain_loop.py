"""How a trial would be trained without this project: ESPnet's classes in a loop like its trainer's.

Model, loss, SpecAugment, batch sampler, padding, warm-up and order of operations are ESPnet's
(`espnet2.train.trainer`); what it imports and does not need here (its reporter, its reader of
scp files) is left out, which favours it. Audio is read and turned into features in each step, as in
ESPnet's recipes, or found as features that were computed before (`stored=True`), as in Kaldi's. For
a GPU that is done ahead by processes of their own, into pinned memory.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.config import NetworkConfig
from model.espnet_config import config_of
from model.subsampling import subsampled_length
from study.data.audio import read_audio
from study.data.config import FeatureConfig
from study.data.dataset import Dataset
from study.data.features import LogMel
from study.training.config import TrainingConfig

with contextlib.redirect_stdout(sys.stderr):
    from espnet.nets.pytorch_backend.nets_utils import pad_list
    from espnet2.asr.ctc import CTC
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.asr.espnet_model import ESPnetASRModel
    from espnet2.asr.frontend.abs_frontend import AbsFrontend
    from espnet2.asr.specaug.specaug import SpecAug
    from espnet2.layers.global_mvn import GlobalMVN
    from espnet2.samplers.num_elements_batch_sampler import NumElementsBatchSampler
    from espnet2.schedulers.warmup_lr import WarmupLR
    from espnet2.torch_utils.device_funcs import to_device


READERS = 4
"""Processes that read for a GPU: `num_workers` of ESPnet's Conformer recipe for LibriSpeech."""


class _Frontend(AbsFrontend):  # type: ignore[misc]
    """Log-mel features in the step, of a padded batch at once, as `DefaultFrontend` does."""

    def __init__(self, features: FeatureConfig) -> None:
        super().__init__()
        self._log_mel = LogMel(features)
        self._mels, self._hop = features.mels, round(features.hop * features.sample_rate)
        self.add_module("mel", self._log_mel._mel)

    def output_size(self) -> int:
        return self._mels

    def forward(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mel = self._log_mel._mel(speech).clamp(min=1e-10).log().transpose(1, 2)
        return mel, lengths // self._hop + 1


class _Utterances(torch.utils.data.Dataset[tuple[str, dict[str, Any]]]):
    def __init__(self, dataset: Dataset, *, stored: bool) -> None:
        self._split, self._stored = dataset.splits["train"], stored

    def __getitem__(self, key: Any) -> tuple[str, dict[str, Any]]:
        number = int(key)
        if self._stored:
            speech = self._split.store.of(self._split.numbers[number]).astype(np.float32)
        else:
            signal = read_audio(self._split.utterances[number])
            assert not isinstance(signal, str), signal
            speech = signal[0]
        return key, {"speech": speech, "text": np.array(self._split.tokens[number])}


def _collate(data: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], dict[str, Tensor]]:
    """ESPnet's `common_collate_fn`."""
    output = {}
    for key in data[0][1]:
        tensors = [torch.from_numpy(values[key]) for _, values in data]
        output[key] = pad_list(tensors, -1 if key == "text" else 0.0)
        output[f"{key}_lengths"] = torch.tensor([len(tensor) for tensor in tensors])
    return [key for key, _ in data], output


class PlainLoop:
    """A trial's training; `run` makes steps and says how many seconds of speech they heard."""

    def __init__(
        self,
        network: NetworkConfig,
        training: TrainingConfig,
        features: FeatureConfig,
        dataset: Dataset,
        device: torch.device,
        *,
        stored: bool,
    ) -> None:
        self._split, self._training, self._device = dataset.splits["train"], training, device
        self._model = _model(network, training, features, dataset, stored=stored).to(device)
        self._model.train()
        self._optimiser = torch.optim.Adam(
            self._model.parameters(), lr=training.learning_rate, weight_decay=1e-6
        )
        self._scheduler = WarmupLR(self._optimiser, warmup_steps=100)
        self._batches = self._sampled(features)
        self._loader = self._endless(_Utterances(dataset, stored=stored))
        self._low = device.type == "cuda"

    @property
    def parameters(self) -> int:
        """Trainable weights."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def run(self, steps: int) -> float:
        """Make so many steps; returns the seconds of speech in them, padding not counted."""
        frames = 0
        for _ in range(steps):
            keys, batch = next(self._loader)
            frames += sum(self._lengths[int(key)] for key in keys)
            batch = to_device(batch, self._device.type)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low):
                loss, stats, _ = self._model(**batch)
            {name: value for name, value in stats.items() if value is not None}
            loss.backward()
            norm = nn.utils.clip_grad_norm_(
                self._model.parameters(), max_norm=self._training.gradient_clip
            )
            if torch.isfinite(norm):
                self._optimiser.step()
                self._scheduler.step()
            self._optimiser.zero_grad()
        return frames * self._split.hop

    def _sampled(self, features: FeatureConfig) -> list[tuple[str, ...]]:
        """ESPnet's `numel` batches of the same seconds of audio, padding included."""
        self._lengths = self._split.lengths
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "speech_shape"
            file.write_text(
                "".join(f"{number} {length},{features.mels}\n"
                        for number, length in enumerate(self._lengths))
            )  # fmt: skip
            bins = int(self._training.batch_seconds / self._split.hop) * features.mels
            return list(NumElementsBatchSampler(batch_bins=bins, shape_files=[str(file)]))

    def _endless(self, utterances: _Utterances) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        gpu = self._device.type == "cuda"
        yield from torch.utils.data.DataLoader(
            utterances,
            batch_sampler=self._shuffled(),
            collate_fn=_collate,
            num_workers=READERS if gpu else 0,
            pin_memory=gpu,
        )

    def _shuffled(self) -> Iterator[list[str]]:
        for epoch in count():
            order = np.random.RandomState(epoch).permutation(len(self._batches))
            yield from (list(self._batches[place]) for place in order)


def _model(
    network: NetworkConfig,
    training: TrainingConfig,
    features: FeatureConfig,
    dataset: Dataset,
    *,
    stored: bool,
) -> ESPnetASRModel:
    """The same network as `Recogniser` builds, to the number of weights."""
    vocabulary = dataset.tokenizer.vocabulary
    tokens = ["<blank>", *(str(n) for n in range(1, vocabulary - 1)), "<sos/eos>"]
    config = config_of(network, mels=features.mels, tokens=tokens)
    encoder = ConformerEncoder(input_size=features.mels, **config["encoder_conf"])
    channels, dim = network.subsampling_channels or network.encoder_dim, network.encoder_dim
    encoder.embed.conv = nn.Sequential(  # ESPnet's own is as wide as the encoder
        nn.Conv2d(1, channels, 3, 2), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2), nn.ReLU()
    )
    encoder.embed.out[0] = nn.Linear(channels * subsampled_length(features.mels), dim)
    decoder = TransformerDecoder(
        vocab_size=vocabulary, encoder_output_size=dim, **config["decoder_conf"]
    )
    masks = training.augmentation
    specaug = SpecAug(
        apply_time_warp=False,
        apply_freq_mask=masks.frequency_masks > 0,
        freq_mask_width_range=(0, masks.frequency_mask_width),
        num_freq_mask=masks.frequency_masks,
        apply_time_mask=masks.time_masks > 0,
        time_mask_width_ratio_range=(0.0, masks.time_mask_share),
        num_time_mask=masks.time_masks,
    ) if masks.frequency_masks or masks.time_masks else None  # fmt: skip
    mean, std = (statistic.double().numpy() for statistic in dataset.normalisation)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feats_stats.npz"
        np.savez(file, count=1, sum=mean, sum_square=mean**2 + std**2)
        normalise = GlobalMVN(str(file))
    return ESPnetASRModel(
        vocab_size=vocabulary,
        token_list=tokens,
        frontend=None if stored else _Frontend(features),
        specaug=specaug,
        normalize=normalise,
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=decoder,
        ctc=CTC(odim=vocabulary, encoder_output_size=dim, **config["ctc_conf"]),
        joint_network=None,
        **config["model_conf"],
    )
