"""The corpus kinds, by the name that stands in study.yaml under `corpus.kind`."""

from __future__ import annotations

from study.data.commonvoice import CommonVoiceCorpus
from study.data.kaldi import KaldiCorpus
from study.data.ksponspeech import KsponSpeechCorpus
from study.data.lhotse import LhotseCorpus
from study.data.librispeech import LibriSpeechCorpus
from study.data.manifest import ManifestCorpus
from study.data.synthetic import SyntheticCorpus

CORPORA = {
    "synthetic": SyntheticCorpus,
    "manifest": ManifestCorpus,
    "librispeech": LibriSpeechCorpus,
    "ksponspeech": KsponSpeechCorpus,
    "commonvoice": CommonVoiceCorpus,
    "kaldi": KaldiCorpus,
    "lhotse": LhotseCorpus,
}
