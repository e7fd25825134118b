"""Which kind of corpus lies in a folder, told by its files.

    found = recognise(Path("corpora/arctic"))      # found.kind == "manifest"

`LAYOUTS` has a function for each kind that is described by files; it returns the settings of the
corpus, or None where the folder is not laid out so. The files themselves are read by the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from study.data.corpus import SPLITS
from study.data.librispeech import GIGABYTES
from study.errors import InputError

NAMES = {
    "train": ("train", "training", "tr"),
    "dev": ("dev", "valid", "validation", "val", "cv"),
    "test": ("test", "eval", "evaluation", "tt"),
}
"""What people call the splits."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A corpus that was recognised."""

    kind: str
    folder: Path
    settings: dict[str, list[str] | str] = field(default_factory=dict)
    """Keys of `corpus` beside `kind` and `folder`, where they are not the defaults."""
    missing: dict[str, str] = field(default_factory=dict)
    """Splits that are not there, with what was looked for."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """What else is called like a split, where nothing is called just so: people should choose."""


def recognise(folder: Path) -> Found:
    """The corpus in a folder.

    Raises `InputError` where there is none, saying what was looked for, and where one lacks a
    split.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: name the folder of a corpus")
    for look in LAYOUTS.values():
        found = look(folder)
        if found is None:
            continue
        if found.missing:
            raise InputError(
                f"{folder}: this is a {found.kind} corpus without a split for {split} (looked for "
                f"{what}): choose on utterances that train does not have, of other speakers where "
                "there are enough, and test on others still"
                for split, what in found.missing.items()
            )
        return found
    raise InputError(
        f"{folder}: no corpus is recognised here. Looked for {'; '.join(SIGNS.values())}. Is it a "
        "folder further up or down? Any other corpus can be described by train.jsonl, dev.jsonl "
        "and test.jsonl, see docs/your-corpus.md"
    )


def _manifest(folder: Path) -> Found | None:
    files = {
        path.name.removesuffix(".jsonl"): path.name
        for path in sorted(folder.glob("*.jsonl"))
        if not path.name.startswith(("cuts", "recordings", "supervisions"))
    }
    return _by_name("manifest", folder, files, "{}.jsonl", "{}.jsonl")


def _common_voice(folder: Path) -> Found | None:
    for home in (folder, *sorted(path.parent for path in folder.glob("*/clips"))):
        if (home / "clips").is_dir():
            files = {path.stem: path.name for path in sorted(home.glob("*.tsv"))}
            return _by_name("commonvoice", home, files, "{}.tsv", "{}.tsv")
    return None


def _kaldi(folder: Path) -> Found | None:
    homes = {
        path.parent.name: str(path.parent.relative_to(folder))
        for pattern in ("data/*/wav.scp", "*/wav.scp")
        for path in sorted(folder.glob(pattern))
    }
    return _by_name("kaldi", folder, homes, "data/{}", "data/{}/wav.scp")


def _by_name(
    kind: str, folder: Path, present: dict[str, str], default: str, sought: str
) -> Found | None:
    """A corpus with one file for each split, by the name of the split in the file's name."""
    named = {split: _named(split, present) for split in SPLITS}
    chosen = {split: next(iter(names), None) for split, names in named.items()}
    if not any(chosen.values()):
        return None
    if (chosen["dev"] or "").startswith(NAMES["train"]):  # held out of train, as ESPnet does
        rest = [name for name in sorted(present) if "nodev" in _words(name)]
        chosen["train"] = next(iter(rest), chosen["train"])
    return Found(
        kind=kind,
        folder=folder,
        settings={
            split: present[name]
            for split, name in chosen.items()
            if name and present[name] != default.format(split)
        },
        missing={
            split: " or ".join(sought.format(name) for name in NAMES[split])
            for split, name in chosen.items()
            if name is None
        },
        others={
            split: [present[name] for name in names[1:]]
            for split, names in named.items()
            if len(names) > 1 and names[0] not in NAMES[split] and chosen[split] == names[0]
        },
    )


def _named(split: str, present: Iterable[str]) -> list[str]:
    """Those of some names that mean a split: `dev`, then `dev_clean` or `train_dev`."""
    names = sorted(present)
    exact = [name for alias in NAMES[split] for name in names if name == alias]
    if split == "train":
        longer = [n for n in names if n.startswith(NAMES[split]) and _named_alone(n)]
    else:
        longer = [n for n in names if set(_words(n)) & set(NAMES[split])]
    return list(dict.fromkeys([*exact, *longer]))


def _named_alone(name: str) -> bool:
    """Whether a name that begins with train is not that of a dev set held out of it."""
    return not set(_words(name)) & {*NAMES["dev"], *NAMES["test"]}


def _words(name: str) -> list[str]:
    return name.replace("-", "_").replace(".", "_").split("_")


def _librispeech(folder: Path) -> Found | None:
    home = folder.parent if folder.name == "LibriSpeech" else folder
    there = [name for name in GIGABYTES if (home / "LibriSpeech" / name).is_dir()]
    if not there:
        return None
    parts = {split: [name for name in there if name.startswith(split)] for split in SPLITS}
    settings: dict[str, list[str] | str] = {"train": parts["train"]}
    for split in ("dev", "test"):  # the clean half, or the other where it is alone
        settings[split] = parts[split][:1]
    return Found(
        kind="librispeech",
        folder=home,
        settings=settings,
        missing={
            split: f"LibriSpeech/{'train-clean-100' if split == 'train' else f'{split}-clean'}"
            for split in SPLITS
            if not parts[split]
        },
    )


def _ksponspeech(folder: Path) -> Found | None:
    wanted = {"train": "train.trn", "dev": "dev.trn", "test": "eval_clean.trn"}
    if not (folder / "KsponSpeech_01").is_dir() and not any(folder.glob("scripts/*.trn")):
        return None
    return Found(
        kind="ksponspeech",
        folder=folder,
        missing={
            split: f"scripts/{name}"
            for split, name in wanted.items()
            if not (folder / "scripts" / name).is_file()
        },
    )


def _lhotse(folder: Path) -> Found | None:
    files = [p.name for p in sorted(folder.glob("*.jsonl*")) if p.suffix in (".jsonl", ".gz")]
    settings: dict[str, list[str] | str] = {}
    missing = {}
    for split in SPLITS:
        meant = [n for n in files if set(_words(n)) & set(NAMES[split]) and _holds(split, n)]
        cuts = [name for name in meant if "cuts" in name]
        pairs = [name for name in meant if "recordings" in name or "supervisions" in name]
        if cuts or pairs:
            settings[split] = cuts or pairs
        else:
            missing[split] = f"cuts_{split}.jsonl.gz, or recordings and supervisions named so"
    if not settings:
        return None
    return Found(kind="lhotse", folder=folder, settings=settings, missing=missing)


def _holds(split: str, name: str) -> bool:
    return split != "train" or _named_alone(name)


LAYOUTS: dict[str, Callable[[Path], Found | None]] = {
    "librispeech": _librispeech,
    "ksponspeech": _ksponspeech,
    "commonvoice": _common_voice,
    "kaldi": _kaldi,
    "lhotse": _lhotse,
    "manifest": _manifest,
}
SIGNS = {
    "manifest": "train.jsonl, dev.jsonl and test.jsonl",
    "librispeech": "LibriSpeech/train-clean-100 and so on",
    "ksponspeech": "KsponSpeech_01 and scripts/train.trn",
    "commonvoice": "train.tsv and clips",
    "kaldi": "data/train/wav.scp",
    "lhotse": "cuts_train.jsonl.gz",
}
"""What a corpus of each kind is recognised by."""
