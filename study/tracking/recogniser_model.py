"""The winner as an MLflow model: audio in, text out.

MLflow keeps this file beside the model and runs it when the model is loaded ("models from code"):
nothing is pickled, neither code of ours nor weights. What it imports travels with the model.

One row is one recording, in one of three columns:

    audio                   the content of a file that soundfile reads; base64 in JSON
    path                    such a file, where the model is loaded
    samples, sample_rate    numbers of one channel, full scale ±1, and their rate in Hz

The parameter `greedy` decodes without beam search.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from study.transcription.recordings import BadRecording, Recording
from study.transcription.trained import open_bundle
from study.transcription.transcriber import Transcriber

SOURCES = ("audio", "path", "samples")


class SpeechRecogniser(PythonModel):
    """Transcribes each row of its input."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network, on the GPU where there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bundle = open_bundle(Path(context.artifacts["bundle"]))
        self._transcriber = Transcriber(bundle, device)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The text of each row. Raises `MlflowException` with all that is wrong with any row."""
        del context
        recordings: list[Recording] = []
        faults: list[str] = []
        for number, row in enumerate(_rows(model_input)):
            try:
                recordings.append(Recording.look(_source(row), shortest=self._transcriber.shortest))
            except BadRecording as error:
                faults.append(f"row {number}: {error}")
        _refuse(
            faults if recordings or faults else ["there are no rows with audio, path or samples"]
        )
        greedy = bool((params or {}).get("greedy"))
        transcripts = list(self._transcriber.transcribe(recordings, greedy=greedy))
        _refuse([f"row {n}: {t.fault}" for n, t in enumerate(transcripts) if t.fault])
        return [transcript.text for transcript in transcripts]


def _refuse(faults: list[str]) -> None:
    if faults:
        raise MlflowException("; ".join(faults), error_code=INVALID_PARAMETER_VALUE)


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What each row has; a cell that lists several paths is as many rows."""
    for row in frame.to_dict("records"):
        found = {str(key): value for key, value in row.items() if not _is_missing(value)}
        several = found.get("path")
        if isinstance(several, list | tuple | np.ndarray):
            yield from ({"path": path} for path in several)
        else:
            yield found


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA


def _source(row: Mapping[str, Any]) -> Path | bytes:
    """The one recording of a row."""
    given = [name for name in SOURCES if name in row]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise BadRecording(f"give one of audio, path, and samples with sample_rate ({found} given)")
    if "path" in row:
        return Path(str(row["path"]))
    if "audio" in row:
        return _decoded(row["audio"])
    if "sample_rate" not in row:
        raise BadRecording("samples come with their sample_rate in Hz")
    return _wave(row["samples"], row["sample_rate"])


def _decoded(audio: object) -> bytes:
    """The content of a file, which some of MLflow's JSON formats leave in base64."""
    content = audio.encode() if isinstance(audio, str) else bytes(audio)  # type: ignore[call-overload]
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        return content


def _wave(samples: object, sample_rate: object) -> bytes:
    """Samples as the content of a file."""
    try:
        signal = np.asarray(samples, dtype=np.float32)
        rate = int(sample_rate)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise BadRecording("samples are numbers, and so is their sample_rate") from None
    if signal.ndim != 1 or rate < 1:
        raise BadRecording("samples are those of one channel, and sample_rate is above 0")
    content = io.BytesIO()
    soundfile.write(content, signal, rate, format="WAV", subtype="FLOAT")
    return content.getvalue()


set_model(SpeechRecogniser())
