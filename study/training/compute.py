"""Ways to compute the gradients of a batch, which give the same: plainly, compiled, or as graphs.

    compute = Plain(recogniser, autocast)
    loss = compute(features, batch, share=1.0)  # gradients are added to those that are there

`Plain` starts each operation from Python, anew in each step. `Compiled` is the same with blocks
that `torch.compile` made into a few kernels: one graph serves all blocks, whatever the depth, and
full batches of a bucket have one shape, so that it is made once for each bucket. `Graphs` records
the operations of a bucket once and replays them, so that nothing is started from Python.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from model.encoder import ConformerBlock
from model.recogniser import Recogniser
from model.subsampling import subsampled_length
from study.data.batches import Batch
from study.training.snapshot import unchanged

RECOMPILATIONS = 64
"""Shapes for which a block may be compiled."""
WARM_UPS = 3
"""Passes before operations are recorded, in which libraries choose their kernels."""

Autocast = Callable[[], AbstractContextManager[Any]]


class Compute(Protocol):
    """Adds the gradients of a batch's loss."""

    def __call__(self, features: Tensor, batch: Batch, share: float) -> Tensor:
        """Gradients of share · loss are added; returns that, detached."""


class Plain:
    """One operation after the other."""

    def __init__(self, recogniser: Recogniser, autocast: Autocast) -> None:
        self._recogniser, self._autocast = recogniser, autocast

    def __call__(self, features: Tensor, batch: Batch, share: float) -> Tensor:
        """Gradients of share · loss are added; returns that, detached."""
        return self._loss(features, batch, share, ragged=batch.ragged)

    def _loss(self, features: Tensor, batch: Batch, share: float, *, ragged: bool) -> Tensor:
        with self._autocast():
            losses = self._recogniser(
                features,
                batch.lengths,
                batch.tokens,
                batch.token_lengths,
                ragged=ragged,
                on_host=(batch.host_lengths, batch.host_token_lengths),
            )
        loss: Tensor = losses.total * share
        loss.backward()
        return loss.detach()


class Compiled(Plain):
    """With compiled blocks for the batches of full buckets, plainly for others."""

    def __init__(
        self,
        recogniser: Recogniser,
        autocast: Autocast,
        shapes: set[tuple[int, int]],
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        """`shapes` are utterances and frames of full batches."""
        super().__init__(recogniser, autocast)
        self._shapes = shapes
        torch._dynamo.reset()  # what earlier trials of this process compiled counts as well
        torch._dynamo.config.recompile_limit = RECOMPILATIONS
        for block in recogniser.encoder.blocks:
            assert isinstance(block, ConformerBlock)
            block.compile(fullgraph=True, dynamic=False, backend=backend)

    def __call__(self, features: Tensor, batch: Batch, share: float) -> Tensor:
        """Gradients of share · loss are added; returns that, detached."""
        if tuple(features.shape[:2]) in self._shapes:
            return self._loss(features, batch, share, ragged=True)  # one graph for all batches
        with plainly():
            return self._loss(features, batch, share, ragged=batch.ragged)


def plainly() -> AbstractContextManager[Any]:
    """Within, compiled blocks run as if they were not: evaluation would need graphs of its own."""
    return torch.compiler.set_stance("force_eager")


Record = Callable[[list[Callable[[], None]]], list[Callable[[], None]]]
"""Makes of functions, to be called one after the other, ones that repeat what they did."""


def gpu_recorder() -> Record:
    """Records CUDA graphs, all in one pool of memory, after some warm-up on a stream of its own.

    What is recorded later overwrites what earlier graphs leave behind and nobody refers to: they
    are to be replayed one after the other, a batch's forward and backward pass together.
    """
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def record(functions: list[Callable[[], None]]) -> list[Callable[[], None]]:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                for function in functions:
                    function()
        torch.cuda.current_stream().wait_stream(stream)
        graphs = []
        for function in functions:
            graph = torch.cuda.CUDAGraph()
            # Another thread may pin the next batch meanwhile, which the mode "global" forbids.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                function()
            graphs.append(graph.replay)
        return graphs

    return record


def call_again(functions: list[Callable[[], None]]) -> list[Callable[[], None]]:
    """Where there is no GPU to record: the functions themselves, for tests."""
    return functions


@dataclass(kw_only=True)
class _Recorded:
    """The tensors through which one bucket's graphs are spoken to."""

    features: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    share: Tensor
    """Of the decoder's loss in what is minimised."""
    loss: Tensor | None = None
    """Of the decoder."""
    scores: Tensor | None = None
    """Log probabilities of CTC `(B, T', V)`; None where there is no such branch."""
    gradient: Tensor | None = None
    """Of what is minimised, by them."""
    forward: Callable[[], None]
    backward: Callable[[], None]
    alive: list[Tensor]
    """What is read at its place in memory though the network may have let go of it: tables of
    positions, which are replaced as they grow."""


class Graphs(Plain):
    """Recorded operations for the batches of full buckets, plainly for others.

    The loss of CTC is computed between the forward and the backward graph, since its kernel reads
    the lengths on the host.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        autocast: Autocast,
        shapes: set[tuple[int, int]],
        gradients: list[Tensor],
        record: Record | None = None,
    ) -> None:
        """`gradients` are those of the weights, which recording must leave as they were.

        `record` is `gpu_recorder()` if None.
        """
        super().__init__(recogniser, autocast)
        self._shapes, self._gradients = shapes, gradients
        self._record = record or gpu_recorder()
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def __call__(self, features: Tensor, batch: Batch, share: float) -> Tensor:
        """Gradients of share · loss are added; returns that, detached."""
        if tuple(features.shape[:2]) not in self._shapes:
            return super().__call__(features, batch, share)
        key = (*features.shape, batch.tokens.shape[1])
        if key not in self._recorded:
            with unchanged(self._recogniser, self._gradients):
                self._recorded[key] = self._record_shape(features, batch)
        part, ctc_weight = self._recorded[key], self._recogniser.config.ctc_weight
        for name in ("lengths", "tokens", "token_lengths"):
            getattr(part, name).copy_(getattr(batch, name))
        part.features.copy_(features)
        part.share.fill_((1 - ctc_weight) * share)
        part.forward()
        assert part.loss is not None
        loss = part.loss.detach() * part.share
        if part.scores is not None:
            scores = part.scores.detach().requires_grad_()
            ctc = self._recogniser.ctc.loss_of(  # type: ignore[union-attr]
                scores,
                subsampled_length(batch.host_lengths),
                batch.tokens,
                batch.host_token_lengths,
            ) * (ctc_weight * share)
            assert part.gradient is not None
            part.gradient.copy_(torch.autograd.grad(ctc, scores)[0])
            loss = loss + ctc.detach()
        part.backward()
        return loss

    def _record_shape(self, features: Tensor, batch: Batch) -> _Recorded:
        recogniser = self._recogniser

        def forward() -> None:
            with self._autocast():
                memory, lengths = recogniser.encode(part.features, part.lengths)
                part.loss = recogniser.decoder.loss(
                    memory, lengths, part.tokens, part.token_lengths
                )
                if recogniser.ctc is not None:
                    part.scores = recogniser.ctc.log_probabilities(memory)
                    if part.gradient is None:
                        part.gradient = torch.zeros_like(part.scores)

        def backward() -> None:
            assert part.loss is not None
            outputs, gradients = [part.loss], [part.share]
            if part.scores is not None and part.gradient is not None:
                outputs, gradients = [*outputs, part.scores], [*gradients, part.gradient]
            torch.autograd.backward(outputs, gradients)
            # Their histories would keep the stream of the warm-up, on which weights' gradients add.
            part.loss = part.loss.detach()
            if part.scores is not None:
                part.scores = part.scores.detach()

        part = _Recorded(
            features=features.clone(),
            lengths=batch.lengths.clone(),
            tokens=batch.tokens.clone(),
            token_lengths=batch.token_lengths.clone(),
            share=torch.ones((), device=features.device),
            forward=forward,
            backward=backward,
            alive=[],
        )
        if self._recogniser.ctc is not None:  # made before anything is recorded
            with torch.no_grad():
                forward()
        part.forward, part.backward = self._record([forward, backward])
        part.alive = list(recogniser.buffers())
        return part
