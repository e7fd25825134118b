"""ESPnet, for the tests that compare with it; they are skipped where it is not installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def espnet() -> SimpleNamespace:
    """ESPnet's classes."""
    with contextlib.redirect_stdout(sys.stderr):  # 202511 prints as it is imported
        pytest.importorskip("espnet2.asr.espnet_model", exc_type=ImportError)
        from espnet2.asr.ctc import CTC
        from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
        from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
        from espnet2.asr.espnet_model import ESPnetASRModel
        from espnet2.layers.global_mvn import GlobalMVN
    return SimpleNamespace(
        invariant=importlib.metadata.version("espnet") >= "202610",  # to padding
        CTC=CTC,
        TransformerDecoder=TransformerDecoder,
        ConformerEncoder=ConformerEncoder,
        ESPnetASRModel=ESPnetASRModel,
        GlobalMVN=GlobalMVN,
    )
