"""`python -m study init`: a commented study.yaml for a corpus, by rules that stand in one table.

The ranges that are searched, the budget and the batch follow from the hours of training speech and
from where it will be trained (`study.scales`); tokens follow from the text (`tokens`). Whatever a
rule decided, the file says why, so that it can be disagreed with. Nothing is trained.
"""

from __future__ import annotations

import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from rich.console import Console

from model.ctc import shortest_alignment
from model.subsampling import subsampled_length
from study.check import EVALUATION_SHARE, step_time
from study.config import StudyConfig
from study.config_file import as_scalar, from_text
from study.corpus_summary import SplitSummary, shared, summarise
from study.data.batches import Batch
from study.data.layouts import Found, recognise
from study.data.registry import CORPORA
from study.data.tokens import PieceTokenizer
from study.errors import InputError
from study.invocation import command
from study.progress import duration_in_words
from study.provenance import cores
from study.scales import PIECES, PROCESSOR_HOURS, scale_of
from study.worker import choose_device

WINDOW, HOP = 0.025, 0.010
USUAL_BAD = 0.01
"""Share of unusable utterances that a study allows by itself."""
MOST_BAD = 0.1
"""Share of unusable utterances above which no file is written: the corpus is not what it should
be."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What was found out about a corpus."""

    found: Found
    splits: list[SplitSummary]
    unusable: float
    """Share of its utterances, those among them whose letters are too many for CTC."""
    allow_outside: bool = False
    """Whether its lists may name audio outside of the folder."""

    @property
    def hours(self) -> float:
        """Of training speech."""
        return sum(self.splits[0].seconds) / 3600

    @property
    def characters(self) -> set[str]:
        """Different ones in the transcripts of train."""
        return set().union(*self.splits[0].texts)

    @property
    def longest(self) -> float:
        """Seconds of the longest utterance."""
        return max(max(split.seconds) for split in self.splits)


def inspect(folder: Path, *, allow_outside: bool = False) -> Corpus:
    """Recognise and read the corpus of a folder.

    Raises `InputError` where there is none, where its lists have faults (among them audio outside
    of the folder, unless that is allowed), where a split is empty, and where too much of it cannot
    be used.
    """
    found = recognise(folder)
    kind: Any = CORPORA[found.kind]
    settings = {**found.settings, "allow_outside": allow_outside}
    corpus = TypeAdapter(kind).validate_python({"folder": found.folder, **settings})
    splits = summarise(corpus.read(Path()), shortest=WINDOW)
    bad = [sentence for split in splits for sentence in split.bad]
    total = sum(len(split.usable) for split in splits) + len(bad)
    empty = [split.name for split in splits if not split.usable]
    crowded = sum(
        shortest_alignment([ord(c) for c in utterance.text])
        > subsampled_length(math.floor((seconds - WINDOW) / HOP) + 1)
        for utterance, seconds in zip(splits[0].usable, splits[0].seconds, strict=True)
    )
    unusable = (len(bad) + crowded) / max(total, 1)
    if empty or unusable > MOST_BAD:
        what = (
            f"no usable utterances in {', '.join(empty)}"
            if empty
            else f"{unusable:.0%} of its utterances cannot be used, {crowded} since they have more "
            "letters than CTC can align"
        )
        raise InputError([f"{folder}: {what}", *bad[:10]])
    return Corpus(found=found, splits=splits, unusable=unusable, allow_outside=allow_outside)


def tokens(corpus: Corpus) -> tuple[str, str]:
    """The section `tokens`, and why it is so."""
    characters = len(corpus.characters)
    size = next((size for hours, size in PIECES if corpus.hours >= hours), None)
    if size is None:
        return "{kind: character}", (
            f"The texts have {characters} characters. Pieces of words (bpe) pay from "
            f"{PIECES[-1][0]} hours on."
        )
    if characters * 2 > size:
        return "{kind: character}", (
            f"The texts have {characters} characters: pieces of words would hardly be fewer."
        )
    if not _learnable(size, corpus.splits[0]):
        words = len(corpus.splits[0].vocabulary)
        return "{kind: character}", (
            f"The texts have {characters} characters, and too few different words ({words}) for "
            f"{size} pieces (bpe)."
        )
    return f"{{kind: bpe, size: {size}}}", (
        f"Pieces of words, as many as the hours of speech can teach ({characters} characters)."
    )


def _learnable(size: int, train: SplitSummary) -> bool:
    """Whether so many pieces can be learnt from the transcripts, which trying takes seconds."""
    with tempfile.TemporaryDirectory() as cache:
        try:
            PieceTokenizer.learn([utterance.text for utterance in train.usable], size, Path(cache))
        except InputError:
            return False
    return True


def text(corpus: Corpus, name: str, device: str) -> str:
    """The study as commented YAML."""
    scale = scale_of(corpus.hours, device)
    kind, why = tokens(corpus)
    epochs = scale.epochs
    if device == "cpu":
        epochs = max(2, min(epochs, round(PROCESSOR_HOURS / corpus.hours)))
    batch = max(min(scale.batch_seconds, corpus.hours * 3600 / 20), corpus.longest)
    where = "a processor" if device == "cpu" else "a GPU"
    lines = [
        f"# What shape should a Conformer have for {_printable(corpus.found.folder)}?",
        "#",
        *(f"# {line}" for line in _facts(corpus)),
        *(f"# Warning: {leak}" for leak in shared(corpus.splits)),
        "#",
        f"# Written by '{command('init')}' for {corpus.hours:.3g} hours on {where}. Change",
        "# what you know better, look with 'check', begin with 'run'. More in docs/your-corpus.md.",
        *(["# On a GPU larger networks can be searched: let init look there."] * (device == "cpu")),
        "",
        f"name: {as_scalar(name)}",
        "",
        _note("corpus:", "folders are relative to where the study is run"),
        f"  kind: {corpus.found.kind}",
        f"  folder: {as_scalar(str(corpus.found.folder))}",
        *(f"  {key}: {_listed(value)}" for key, value in corpus.found.settings.items()),
        *_permission(corpus.allow_outside),
        *_allowance(corpus.unusable),
        "",
        _note(f"features: {{mels: {scale.mels}}}", "bands; windows of 25 ms, 10 ms apart"),
        "",
        f"# {why}",
        f"tokens: {kind}",
        "",
        _note("network:", "what is not searched"),
        f"  subsampling_channels: {scale.channels}",
        "  decoder_heads: 4",
        f"  decoder_feed_forward_ratio: {scale.decoder_ratio}",
        _note("  embedding_init: scaled", "N(0, 1) embeddings drown a narrow decoder"),
        _note(f"  ctc_weight: {scale.ctc_weight}", "of the loss; the decoder has the rest"),
        "  dropout: 0.1",
        "",
        "training:",
        _note(f"  budget: {{epochs: {epochs:g}}}", _epochs_why(corpus.hours * epochs, device)),
        _note(f"  evaluations: {scale.evaluations}", "on dev; a checkpoint after each"),
        _note(
            f"  batch_seconds: {batch:.4g}",
            f"seconds of audio; the longest utterance has {corpus.longest:.3g}",
        ),
        _note(f"  learning_rate: {scale.learning_rate}", "of the anchors; searched for all others"),
        f"  decoder_learning_rate_scale: {scale.decoder_scale}",
        "  augmentation: {frequency_masks: 2, "
        f"frequency_mask_width: {scale.frequency_mask_width}, time_masks: 2}}",
        "",
        f"# {scale.why[0].upper()}{scale.why[1:]}.",
        "search:",
        *(f"  {key + ':':18}{values}" for key, values in scale.search.items()),
        "",
        _note("anchors:", "shapes known beforehand, which the search must beat"),
        *(f"  - {anchor}" for anchor in scale.anchors),
        "",
        _note(f"explore: {{trials: {scale.explore}}}", "an even sample: more make surer answers"),
        _note(f"refine: {{trials: {scale.refine}}}", "find the best"),
        _note(f"finalists: {{top: {scale.top}, seeds: 3}}", "the best again, fresh seeds, on test"),
        "",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _note(line: str, why: str) -> str:
    """A line of YAML with a comment, which stands where all do."""
    return f"{line:31} # {why}"


def _allowance(unusable: float) -> list[str]:
    """The key that lets a corpus have more unusable utterances than usual, where it must."""
    if unusable <= USUAL_BAD:
        return []
    allowed = math.ceil(unusable * 100) / 100 + 0.01
    why = f"{unusable:.1%} are too short, unreadable or without text"
    return [_note(f"  max_bad_utterances: {allowed:g}", why)]


def _permission(allow_outside: bool) -> list[str]:
    """The key that lets lists name audio outside of the folder, where they may."""
    return [_note("  allow_outside: true", "its lists may name audio outside")] * allow_outside


def _facts(corpus: Corpus) -> list[str]:
    lines = []
    for split in corpus.splits:
        count = len(split.speakers)
        speakers = f", {count} speaker{'s' * (count != 1)}" if count else ""
        lines.append(
            f"{split.name:5} {sum(split.seconds) / 3600:7.2f} hours, {len(split.usable):6,} "
            f"utterances, {len(split.vocabulary):,} different words{speakers}"
        )
    return lines


def _epochs_why(hours: float, device: str) -> str:
    if device == "cpu":
        return f"{hours:.3g} hours to hear, which a processor can; more is better"
    return f"{hours:.3g} hours to hear; shorter than a final training"


def _printable(path: Path) -> str:
    """A path as a comment may have it, which a line break would end."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _listed(value: list[str] | str) -> str:
    if isinstance(value, str):
        return as_scalar(value)
    return "[" + ", ".join(map(as_scalar, value)) + "]"


def study_name(plain: str) -> str:
    """A name for a study like that of a folder or file, in letters that a study's may have."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in plain)
    return kept.strip("-_.") or "study"


def estimate(config: StudyConfig, corpus: Corpus, device: torch.device) -> tuple[float | None, str]:
    """Seconds that a study should take, from a step of its smallest and its largest network.

    None where one of them does not fit into memory; and what the largest lacks of it, if anything.
    """
    train = corpus.splits[0]
    mean = sum(train.seconds) / len(train.seconds)
    size = max(1, round(config.training.batch_seconds / mean))
    frames = round(mean / HOP)
    letters = max(1, round(sum(len(u.text) for u in train.usable) / len(train.usable)))
    vocabulary = config.tokens.size or len(corpus.characters) + 3
    lengths, token_lengths = torch.full((size,), frames), torch.full((size,), letters)
    batch = Batch(
        features=torch.randn(size, frames, config.features.mels),
        lengths=lengths,
        tokens=torch.randint(3, vocabulary - 1, (size, letters)),
        token_lengths=token_lengths,
        host_lengths=lengths,
        host_token_lengths=token_lengths,
        members=list(range(size)),
    ).to(device)
    steps = (config.training.budget.epochs or 1) * len(train.usable) / size
    smallest, largest = (
        step_time(*config.at_end(end), batch, vocabulary, device) for end in (0, 1)
    )
    if smallest.seconds is None or largest.seconds is None:
        return None, largest.remark
    trial = steps * (smallest.seconds + largest.seconds) / 2 * (1 + EVALUATION_SHARE)
    workers = cores() if device.type == "cpu" else 1
    trials = config.trials + config.finalist_trials
    return trials * trial / workers, largest.remark


def init(
    folder: Path,
    to: Path | None,
    device: str,
    console: Console,
    *,
    allow_outside: bool = False,
) -> Path:
    """Write a study of the corpus in a folder, and say what it will take.

    Raises `InputError` where the file is there already, and as `inspect` does.
    """
    name = study_name(to.stem if to else folder.resolve().name)
    file = to or Path(f"{name}.yaml")
    if file.exists():
        raise InputError(f"{file} is there already, and is kept: name another file with --to")
    # A study may be written where there is no GPU, for a machine that has one.
    chosen = device if device == "cuda" else choose_device(device).type
    with console.status("Looking at the corpus …"):
        corpus = inspect(folder, allow_outside=allow_outside)
        content = text(corpus, name, chosen)
    config = from_text(file, content)  # a study that cannot be read would be in the way
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(content)
    except FileExistsError:
        raise InputError(f"{file} is there already, and is kept: name another with --to") from None
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from None
    title = f"{corpus.found.kind} corpus in {corpus.found.folder}"
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    for line in _facts(corpus):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    for leak in shared(corpus.splits):
        console.print(f"warning: {leak}", highlight=False, markup=False, soft_wrap=True)
    for split, others in corpus.found.others.items():
        taken = corpus.found.settings[split]
        said = f"warning: {split} is {taken}, of several; not taken: {', '.join(others)}"
        console.print(f"{said} (change corpus.{split})", markup=False, soft_wrap=True)
    trials = config.trials + config.finalist_trials
    console.print(f"\n{file}: {trials} trials", highlight=False, markup=False, soft_wrap=True)
    if chosen == "cuda" and not torch.cuda.is_available():
        console.print("The time it takes is told by check, where the GPU is.", highlight=False)
    else:
        seconds, lack = estimate(config, corpus, torch.device(chosen))
        if seconds is not None:
            said = f"about {duration_in_words(seconds)} on this machine, a first guess"
            console.print(said, highlight=False)
        if lack:
            console.print(f"the largest network: {lack}", highlight=False, soft_wrap=True)
    named = shlex.quote(str(file))
    for line in (f"look     {command('check', named)}", f"run      {command('run', named)}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return file
