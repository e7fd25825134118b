"""The corpus kinds, by the name that stands in study.yaml under `corpus.kind`."""

from __future__ import annotations

from study.data.manifest import ManifestCorpus
from study.data.synthetic import SyntheticCorpus

CORPORA = {
    "synthetic": SyntheticCorpus,
    "manifest": ManifestCorpus,
}
