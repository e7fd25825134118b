"""The winner as an MLflow model: audio in, text out, wherever MLflow runs.

    model_id, _ = log_model(experiment, chosen)            # chosen: from study.winner
    version = register(experiment, model_id, "speech", "champion")

The model holds the weights as a state dict, the configuration and the tokenizer as plain files
(`study.transcription.trained`), and the sources that build the network from them. Nothing is
pickled. A fresh environment needs `requirements()` alone; this project need not be installed there.
"""

from __future__ import annotations

import ast
import hashlib
import io
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from model.config import SHAPE
from reports.redaction import redact
from study.errors import InputError
from study.provenance import ROOT
from study.tracking.address import is_server
from study.tracking.store import Experiment, connect
from study.tracking.values import as_text, one_line
from study.transcription.trained import Trained, save_bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

NAME = "winner"
"""What the model is called among the models of the study."""
ALIAS = "champion"
"""The alias that a registered version gets, by MLflow's own custom for the one in use."""
CODE = Path(__file__).with_name("recogniser_model.py")
"""What MLflow runs when it loads the model."""


def sources() -> tuple[list[Path], list[str]]:
    """What `CODE` imports, directly or through others: our files, and the names of libraries."""
    found: list[Path] = []
    libraries: set[str] = set()
    waiting = [CODE]
    while waiting:
        file = waiting.pop()
        for name in _imports(file):
            if name.partition(".")[0] not in ("model", "study"):
                libraries.add(name.partition(".")[0])
                continue
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):  # the packages around a module run as well
                place = ROOT.joinpath(*parts[:depth])
                for path in (place.with_suffix(".py"), place / "__init__.py"):
                    if path.is_file() and path not in found:
                        found.append(path)
                        waiting.append(path)
    return sorted(found), sorted(libraries - {"__future__"} - sys.stdlib_module_names)


def _imports(file: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it, those for type checkers included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def requirements() -> list[str]:
    """What an environment needs to run the model, in the versions of this one."""
    _, libraries = sources()
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in libraries]


def log_model(experiment: Experiment, chosen: Trained) -> tuple[str, bool]:
    """Log a network under the study's run: the id of the model, and whether it is a new one.

    One that is there already, with the same weights, is not logged again. Raises what MLflow
    raises where it cannot be reached.
    """
    client = connect(experiment.tracking_uri)
    weights = _digest(chosen.checkpoint)
    known = _known(client, experiment, weights)
    if known is not None:
        return known, False
    from mlflow.entities import LoggedModelOutput

    model = client.create_logged_model(
        experiment.experiment_id,
        name=NAME,
        source_run_id=experiment.run_id,
        tags={
            "trial": str(chosen.trial),
            "label": chosen.label,
            "introduction": chosen.introduction,
            "study": chosen.study,
            "weights": weights,
        },
        params={name: as_text(getattr(chosen.network, name)) for name in SHAPE},
        model_type="speech recogniser",
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            _save(place, chosen, model.artifact_location, model.model_id, experiment.run_id)
            client.log_model_artifacts(model.model_id, str(place))
        output = LoggedModelOutput(model.model_id, step=0)
        client.log_outputs(experiment.run_id, models=[output])
        measured = round(chosen.checkpoint.stat().st_mtime * 1000)  # the same in a second attempt
        for name, rate in (("dev_wer", chosen.wer), ("test_wer", chosen.test_wer)):
            if rate is not None:
                client.log_metric(
                    experiment.run_id, name, rate, timestamp=measured, model_id=model.model_id
                )
    except BaseException:
        with suppress(Exception):  # else the next attempt removes it
            client.delete_logged_model(model.model_id)
        raise
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id), True


def _known(client: MlflowClient, experiment: Experiment, weights: str) -> str | None:
    """The id of the study's model with these weights; removes what is left of attempts at it."""
    found = None
    token = None
    while True:
        page = client.search_logged_models(
            [experiment.experiment_id], filter_string=f"name = '{NAME}'", page_token=token
        )
        for model in page:
            if model.source_run_id == experiment.run_id and model.tags.get("weights") == weights:
                if str(model.status) == "READY":
                    found = str(model.model_id)
                else:
                    client.delete_logged_model(model.model_id)
        token = page.token
        if not token:
            return found


def register(experiment: Experiment, model_id: str, name: str, alias: str = ALIAS) -> str:
    """Make a logged model a version of a registered one, and point the alias at it.

    Returns the version. A model that is a version already stays that one. Raises `InputError`
    where MLflow refuses the names.
    """
    from mlflow.exceptions import MlflowException

    client = connect(experiment.tracking_uri)
    try:
        if not any(m.name == name for m in client.search_registered_models(f"name = '{name}'")):
            client.create_registered_model(name)
        # Without a server MLflow would look a `models:/` address up in another store.
        model = client.get_logged_model(model_id)
        server = is_server(experiment.tracking_uri)
        source = f"models:/{model_id}" if server else model.artifact_location
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.source == source:
                break
        else:
            version = client.create_model_version(
                name,
                source=source,
                run_id=experiment.run_id,
                model_id=model_id,
                tags={key: model.tags[key] for key in ("study", "trial") if key in model.tags},
                description=model.tags.get("introduction"),
            )
        client.set_registered_model_alias(name, alias, version.version)
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        raise InputError(
            f"MLflow refuses to register '{name}@{alias}': {one_line(error)}"
        ) from None
    return str(version.version)


def serving(experiment: Experiment, uri: str) -> list[str]:
    """The commands that serve a model on this machine and ask it, in lines."""
    return [
        f"export MLFLOW_TRACKING_URI={redact(experiment.tracking_uri)}",
        f"mlflow models serve -m {uri} --env-manager local --port 5001",
        # Through a pipe: an argument has room for three seconds of speech.
        """(printf '{"dataframe_records": [{"audio": "'; base64 < a.wav | tr -d '\\n'; """
        """printf '"}]}') | \\""",
        "  curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
        "--data-binary @-",
    ]


def _save(place: Path, chosen: Trained, location: str, model_id: str, run_id: str) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model

    bundle, code = place.with_name("bundle"), place.with_name("code")
    save_bundle(chosen, bundle)
    files, _ = sources()
    for file in files:
        target = code / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for type hints that it would not understand
        mlflow.pyfunc.save_model(
            place,
            python_model=str(CODE),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(package) for package in sorted(code.iterdir())],
            signature=signature(),
            input_example=_example(chosen),
            pip_requirements=requirements(),
            metadata={"study": chosen.study, "trial": chosen.trial},
            mlflow_model=Model(
                artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id
            ),
        )


def signature() -> ModelSignature:
    """What the model takes and gives; `CODE` says what each column is."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "audio", required=False),
                ColSpec(DataType.string, "path", required=False),
                ColSpec(Array(DataType.double), "samples", required=False),
                ColSpec(DataType.long, "sample_rate", required=False),
            ]
        ),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema([ParamSpec("greedy", DataType.boolean, default=False)]),
    )


def _example(chosen: Trained) -> Any:
    """A second of a tone: nobody's voice leaves the corpus for an example."""
    import pandas

    rate = chosen.features.sample_rate
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    content = io.BytesIO()
    soundfile.write(content, tone, rate, format="FLAC")
    return pandas.DataFrame({"audio": [content.getvalue()]})


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
