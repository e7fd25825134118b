"""A split whose speech stays on a GPU: a batch is one gather there, and nothing is waited for.

    feed = Feed(batches, device)
    for batch in feed(plan):
        ...

Where the features of the corpus fit into `RESIDENT_SHARE` of what is free of the GPU's memory they
are copied there once for each process. Otherwise batches are put together in pinned memory by a
thread, one ahead, and copied while the GPU computes. On the CPU a batch is read when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from study.data.batches import IGNORED, Batch, Batches
from study.data.dataset import Split
from study.data.features import FeatureStore

RESIDENT_SHARE = 0.3
"""Of a GPU's memory, how much of what is free the features of a corpus may take."""

_copies: dict[tuple[int, torch.device], Tensor] = {}


class Resident:
    """The features and tokens of a split on a device."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        split = batches.split
        self._split, self._lengths, self._device = split, batches.lengths, device
        self._frames = _copy(split.store, device)  # (N, F), float16
        offsets = torch.from_numpy(split.store.offsets[split.numbers])
        written = [len(tokens) for tokens in split.tokens]
        table = np.full((len(split), max(written)), IGNORED, dtype=np.int64)
        for row, tokens in enumerate(split.tokens):
            table[row, : len(tokens)] = tokens
        self._written = written
        self._tokens = torch.from_numpy(table).to(device)
        # offset, frames and tokens of each utterance
        self._places = torch.stack(
            (offsets, torch.tensor(self._lengths), torch.tensor(written)), dim=1
        ).to(device)

    def gather(
        self, members: list[int], *, frames: int | None = None, tokens: int | None = None
    ) -> Batch:
        """As `Batches.gather`; padded to so many frames and tokens, or to what the longest has."""
        host_lengths = torch.tensor([self._lengths[member] for member in members])
        host_tokens = torch.tensor([self._written[member] for member in members])
        frames, tokens = frames or int(host_lengths.max()), tokens or int(host_tokens.max())
        rows = torch.tensor(members)
        if self._device.type == "cuda":
            rows = rows.pin_memory().to(self._device, non_blocking=True)
        places = self._places.index_select(0, rows)
        steps = torch.arange(frames, device=self._device)
        index = (places[:, :1] + steps).clamp_(max=len(self._frames) - 1)
        features = self._frames.index_select(0, index.flatten()).float()
        features = features.view(len(members), frames, -1)
        padding = steps >= places[:, 1:2]
        return Batch(
            features=features.masked_fill_(padding.unsqueeze(-1), 0.0),
            lengths=places[:, 1],
            tokens=self._tokens.index_select(0, rows)[:, :tokens],
            token_lengths=places[:, 2],
            host_lengths=host_lengths,
            host_token_lengths=host_tokens,
            members=members,
        )


class Feed:
    """Batches on a device, each ready when it is needed."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self.resident = Resident(batches, device) if _fits(batches.split, device) else None

    def __call__(self, plan: Iterable[list[int]], *, fixed: bool = False) -> Iterator[Batch]:
        """The batches of a plan; `fixed`: full batches have the shape of their bucket."""
        if self.resident is not None:
            for members in plan:
                shape = self._batches.shape(members) if fixed else None
                frames, tokens = shape or (None, None)
                yield self.resident.gather(members, frames=frames, tokens=tokens)
        elif self._device.type == "cuda":
            yield from self._ahead(plan, fixed=fixed)
        else:
            yield from (self._read(members, fixed=fixed) for members in plan)

    def _read(self, members: list[int], *, fixed: bool) -> Batch:
        shape = self._batches.shape(members) if fixed else None
        frames, tokens = shape or (None, None)
        return self._batches.gather(members, frames=frames, tokens=tokens)

    def _pinned(self, members: list[int], *, fixed: bool) -> Batch:
        return self._read(members, fixed=fixed).pinned()

    def _ahead(self, plan: Iterable[list[int]], *, fixed: bool) -> Iterator[Batch]:
        with ThreadPoolExecutor(max_workers=1) as executor:
            waiting = None
            for members in plan:
                read = executor.submit(self._pinned, members, fixed=fixed)
                if waiting is not None:
                    yield waiting.result().to(self._device)
                waiting = read
            if waiting is not None:
                yield waiting.result().to(self._device)


def forget() -> None:
    """Give the memory of all copies back, as soon as no feed needs them."""
    _copies.clear()


def _fits(split: Split, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    if (id(split.store.frames), device) in _copies:
        return True
    free, _ = torch.cuda.mem_get_info(device)  # whoever else has the rest
    return split.store.frames.nbytes <= RESIDENT_SHARE * free


def _copy(store: FeatureStore, device: torch.device) -> Tensor:
    """All frames of a corpus on a device, for whichever splits and trials of this process."""
    key = (id(store.frames), device)
    if key not in _copies:
        _copies.clear()  # one corpus at a time
        _copies[key] = torch.from_numpy(np.asarray(store.frames).copy()).to(device)
    return _copies[key]
