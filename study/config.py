"""study.yaml as typed values: it mirrors the file from top to bottom.

`study.config_file.load` reads one. Nothing here imports torch, Optuna or MLflow, so that a file
with a fault is refused at once.
"""

from __future__ import annotations

import functools
import operator
import typing
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from model.config import SHAPE, Decoding, NetworkConfig
from study import provenance
from study.anchors import ANCHORS
from study.data.config import FeatureConfig, TokenConfig
from study.data.corpus import Corpus
from study.data.registry import CORPORA
from study.files import Folder
from study.passwords import expand
from study.space import Dimension, Number, SearchRange
from study.training.config import TrainingConfig

if typing.TYPE_CHECKING:
    AnyCorpus = Corpus
else:
    AnyCorpus = Annotated[
        functools.reduce(operator.or_, CORPORA.values()), Field(discriminator="kind")
    ]


SQLITE_WORKERS = 16
"""Workers of one machine up to which `storage: auto` takes SQLite.

So many got 3 trials a second out of it, as measured (docs/many-machines.md); of trials that take a
minute they need one in four seconds."""
JOURNAL_WORKERS = 64
"""Workers up to which it takes a journal; beyond, it asks for a database.

They need about one trial a second, where 16 workers got 22 out of it."""
FILES = {"sqlite": "study.db", "journal": "study.journal"}
"""Storages that are a file in the study's folder, and its name."""


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ExploreConfig(_Section):
    """Phase 1: an even sample of the space at full budget, from which effects are read."""

    trials: Annotated[int, Ge(0)] = 32
    """Configurations of a scrambled Sobol sequence, besides the anchors."""


class RefineConfig(_Section):
    """Phase 2: a sampler that concentrates and a pruner that pauses, to find the best."""

    trials: Annotated[int, Ge(0)] = 32
    """Configurations that the sampler proposes."""
    hours: Annotated[float, Gt(0)] | None = None
    """Hours of training and evaluation, of all workers together, that this phase may take. When
    they are spent, no trial of it is begun and none goes on from a rung; those that were not begun
    are left out. Null: only `trials` says when it ends."""
    sampler: Literal["tpe", "random"] = "tpe"
    """`tpe` learns from all earlier trials; `random` continues the even sample."""
    pruner: Literal["successive_halving", "none"] = "successive_halving"
    """`successive_halving` pauses trials that are not among the best at a rung; they go on
    from their checkpoints where later trials make them so."""
    first_rung: Annotated[float, Gt(0), Le(1)] = 0.5
    """Share of the budget after which trials are first compared."""
    reduction_factor: Annotated[int, Ge(2)] = 2
    """Rungs lie this factor apart, and one trial in this many goes on from each."""
    survivors: Annotated[float, Ge(0), Le(1)] = 0.15
    """Share of the trials that are spared at random, to measure what pruning costs."""


class FinalistsConfig(_Section):
    """Phase 3: the best configurations and the anchors, trained again and scored on test."""

    top: Annotated[int, Ge(0)] = 3
    """Configurations of the search to repeat; with 0 this phase is left out, anchors and all."""
    seeds: Annotated[int, Ge(1)] = 3
    """Trainings of each, with fresh seeds."""
    anchors: bool = True
    """Repeat the anchors as well."""
    decoding: Decoding = Decoding()
    """The beam search that test is decoded with; all other scores are of greedy decoding."""


class SlurmConfig(_Section):
    """What SLURM is asked for, for each worker."""

    partition: str | None = None
    """The partition; null: the cluster's default."""
    minutes: Annotated[int, Ge(2)] = 240
    """The longest that a job may run. Its worker then saves, and the job is queued again."""
    gpus: Annotated[int, Ge(0)] = 1
    """GPUs of a worker; 0 for none."""
    cpus: Annotated[int, Ge(1)] = 4
    """Cores of a worker."""
    memory: Annotated[float, Gt(0)] = 16
    """Memory of a worker, in GB."""
    account: str | None = None
    """Who pays."""
    qos: str | None = None
    """The quality of service."""
    constraint: str | None = None
    """Features that a machine must have, as in `--constraint`."""
    setup: tuple[str, ...] = ()
    """Lines of shell to run first on the machine, such as `module load cuda`."""


class LauncherConfig(_Section):
    """How workers, the processes that run trials, are started."""

    kind: Literal["inline", "local", "ray", "slurm"] = "local"
    """`inline`: in this process; `local`: processes on this machine; `ray`: on a Ray cluster;
    `slurm`: jobs of a SLURM cluster."""
    workers: Annotated[int, Ge(1)] | None = None
    """Workers; null: one a core on the CPU (64 at most where the storage is a file), or
    `workers_per_gpu` on each GPU of this machine."""
    workers_per_gpu: Annotated[int, Ge(1)] | Literal["auto"] = 1
    """Workers that share a GPU (`local` and `ray`). `auto`, for `local`: as many as a step of the
    largest network says there is memory for, and no more than there are cores."""
    address: str | None = None
    """Ray's cluster, such as `auto` or `ray://host:10001`; null: one on this machine."""
    slurm: SlurmConfig = SlurmConfig()

    @property
    def elsewhere(self) -> bool:
        """Whether workers are started on other machines, which may have what this one lacks."""
        return self.kind in ("ray", "slurm")


class TrackingConfig(_Section):
    """Where runs are logged for people to browse."""

    enabled: bool = True
    """Log to MLflow."""
    uri: str | None = None
    """An MLflow tracking URI, a password in it as `${NAME}`, a variable of the environment; null: a
    database in `runs`, shared by all studies there."""
    system_metrics: bool = True
    """Log use of processor, memory and GPUs with each evaluation; needs psutil and nvidia-ml-py."""
    model: bool = True
    """Log the winner's network as an MLflow model when the study is over."""
    register_as: Annotated[str, Field(pattern=r"^[^/:]+$")] | None = None
    """The name in MLflow's registry of which that model becomes the version with the alias
    `champion`; null: it is not registered."""


class Anchor(_Section):
    """A configuration known from elsewhere, which every study of it contains."""

    name: str
    shape: dict[str, Number]
    """Its six values."""


class StudyConfig(_Section):
    """A whole study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = "study"
    """Names the study everywhere: its folder, in Optuna and in MLflow; the file's name if
    absent."""
    runs: Folder = Path("runs")
    """The folder of all studies, their cache and MLflow's database, relative to the working one."""
    corpus: AnyCorpus
    """The speech to train on, choose on and test on."""
    features: FeatureConfig = FeatureConfig()
    tokens: TokenConfig = TokenConfig()
    network: NetworkConfig = NetworkConfig()
    """The network where it is not searched."""
    training: TrainingConfig = TrainingConfig()
    """The training where it is not searched."""
    search: dict[str, SearchRange] = {}
    """Ranges of what is searched: any numeric key of `network` or `training`."""
    anchors: tuple[str | dict[str, Any], ...] = ()
    """Names of known shapes, or mappings of the six (and a `name`)."""
    explore: ExploreConfig = ExploreConfig()
    refine: RefineConfig = RefineConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    seed: int = 0
    """Decides the sample, the samplers and every trial's own seed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where trials train; `auto` is the GPU where there is one."""
    storage: Annotated[str, BeforeValidator(lambda given: "auto" if given is None else given)] = (
        "auto"
    )
    """Where Optuna keeps the trials: `sqlite` (a file; one machine), `journal` (a file; machines
    that share the folder), a URL (`postgresql+psycopg://user:${STUDY_DB_PASSWORD}@host/name`, where
    `${NAME}` is a variable of the environment; `grpc://host:port`), or `auto`: the file that is
    there, else SQLite for up to 16 workers of one machine, else a journal."""
    launcher: LauncherConfig = LauncherConfig()
    tracking: TrackingConfig = TrackingConfig()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on workers write what they do into `logs` in the study's folder, a file for
    each. `info`: a line for each evaluation; `debug`: the whole settings of each trial as well."""

    @property
    def folder(self) -> Path:
        """Where everything that this study makes is kept."""
        return self.runs / self.name

    @property
    def cache(self) -> Path:
        """Speech, features and tokens that studies share."""
        return self.runs / "cache"

    @property
    def storage_url(self) -> str:
        """The URL of Optuna's storage, in which `${NAME}` still stands for itself."""
        kind = self._automatic_storage() if self.storage == "auto" else self.storage
        if kind not in FILES:
            return kind
        slashes = "///" if kind == "sqlite" else "//"
        return f"{kind}:{slashes}{(self.folder / FILES[kind]).absolute()}"

    def _automatic_storage(self) -> str:
        there = [kind for kind, file in FILES.items() if (self.folder / file).exists()]
        if there:
            return there[0]
        few = self._likely_workers() <= SQLITE_WORKERS
        return "sqlite" if few and not self.launcher.elsewhere else "journal"

    def _likely_workers(self) -> int:
        """Workers that `run` will start on this machine, as far as can be told at once."""
        launcher = self.launcher
        if launcher.workers is not None or launcher.kind == "inline":
            return launcher.workers or 1
        gpus = 0 if self.device == "cpu" else provenance.gpus()
        if not gpus or launcher.workers_per_gpu == "auto":
            return provenance.cores()
        return gpus * launcher.workers_per_gpu

    @property
    def storage_file(self) -> Path | None:
        """The file that the storage is, there yet or not; None where it is a server's."""
        kind, _, place = self.storage_url.partition("://")
        if kind not in FILES:
            return None
        if kind == "sqlite":
            place = place.removeprefix("/").partition("?")[0]  # options of the connection follow
        return Path(expand(place))

    @property
    def begun(self) -> bool:
        """Whether there may be such a study: false where its storage's file is missing or empty."""
        file = self.storage_file
        return file is None or (file.exists() and file.stat().st_size > 0)

    @property
    def trials(self) -> int:
        """Trials of the search: anchors, explore and refine."""
        return len(self.anchors) + self.explore.trials + self.refine.trials

    @property
    def finalist_trials(self) -> int:
        """Trials that follow the search, where every anchor and enough candidates finish."""
        finalists = self.finalists
        if not finalists.top:
            return 0
        configurations = min(finalists.top, self.explore.trials + self.refine.trials)
        if finalists.anchors:
            configurations += len(self.anchors)
        return configurations * finalists.seeds

    @functools.cached_property
    def space(self) -> dict[str, Dimension]:
        """The searched parameters by name, in the order of the file."""
        return {
            name: Dimension.of(name, searched, whole=SEARCHABLE[name][1])
            for name, searched in self.search.items()
        }

    @functools.cached_property
    def anchor_shapes(self) -> list[Anchor]:
        """The anchors with all their six values; what a mapping leaves out is the baseline's."""
        baseline = {name: getattr(self.network, name) for name in SHAPE}
        anchors = []
        for place, anchor in enumerate(self.anchors, start=1):
            if isinstance(anchor, str):
                anchors.append(Anchor(name=anchor, shape={**ANCHORS[anchor]}))
            else:
                given = {name: value for name, value in anchor.items() if name != "name"}
                name = str(anchor.get("name", f"anchor-{place}"))
                anchors.append(Anchor(name=name, shape={**baseline, **given}))
        return anchors

    def anchor_shape(self, name: str | None) -> dict[str, Number]:
        """The six values of the anchor of that name; none where there is no such anchor."""
        return next((anchor.shape for anchor in self.anchor_shapes if anchor.name == name), {})

    def with_parameters(
        self, parameters: dict[str, Number]
    ) -> tuple[NetworkConfig, TrainingConfig]:
        """The network and the training of one trial."""
        changes: dict[str, dict[str, Any]] = {"network": {}, "training": {}}
        for name, value in parameters.items():
            section, whole = SEARCHABLE[name]
            changes[section][name] = int(value) if whole else float(value)
        return replace(self.network, **changes["network"]), replace(
            self.training, **changes["training"]
        )

    def at_end(self, end: int) -> tuple[NetworkConfig, TrainingConfig]:
        """The network, and its training, with the smallest (0) or largest (1) shape searched."""
        ends = {name: d.extremes[end] for name, d in self.space.items() if name in SHAPE}
        return self.with_parameters(ends)


def _searchable() -> dict[str, tuple[str, bool]]:
    """The numeric fields of network and training."""
    found = {}
    for section, config in (("network", NetworkConfig), ("training", TrainingConfig)):
        hints = typing.get_type_hints(config)
        for field in fields(config):
            kind = hints[field.name]
            options = typing.get_args(kind) or (kind,)  # those of a union, of either spelling
            for number in (int, float):
                if number in options:
                    found[field.name] = (section, number is int)
    return found


SEARCHABLE = _searchable()
"""What may stand under `search`: name -> (section, whether a whole number)."""
