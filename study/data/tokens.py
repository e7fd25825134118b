"""From transcripts to token numbers and back.

The order of the vocabulary is ESPnet's: `<blank>` (of CTC), `<unk>`, the units in a fixed order,
and `<sos/eos>` last. So are the files of a tokenizer that was learnt:

    tokens.txt   the names of all tokens in the order of their numbers, one a line
    bpe.model    SentencePiece's model, where the units are its pieces
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Protocol

from study.data.config import TokenConfig
from study.errors import InputError
from study.files import write_atomically

BLANK, UNKNOWN, FIRST_UNIT = 0, 1, 2
BLANK_TEXT, UNKNOWN_TEXT, BOUNDARY_TEXT = "<blank>", "<unk>", "<sos/eos>"
SPACE = "<space>"
"""The name of the token that writes a space, where the units are characters."""
NAMES, MODEL = "tokens.txt", "bpe.model"


class Tokenizer(Protocol):
    """What every tokenizer offers."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens, the three special ones included."""
        ...

    @property
    def names(self) -> list[str]:
        """What the tokens are called, in the order of their numbers."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files from which `open_tokenizer` makes the same tokenizer."""
        ...

    def encode(self, text: str) -> list[int]:
        """Tokens of a transcript; units that training does not have become `UNKNOWN`."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens; one that is no unit reads `<unk>` and so counts as an error."""
        ...


class CharacterTokenizer:
    """One token for each character of the training transcripts, the space included."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._numbers = {c: FIRST_UNIT + i for i, c in enumerate(characters)}

    @classmethod
    def learn(cls, texts: list[str]) -> CharacterTokenizer:
        """All characters of the texts, in code-point order."""
        return cls("".join(sorted(set().union(*texts))))

    @property
    def vocabulary(self) -> int:
        """Number of tokens, the three special ones included."""
        return FIRST_UNIT + len(self.characters) + 1

    @property
    def names(self) -> list[str]:
        """What the tokens are called: the characters themselves, and `<space>`."""
        return _names([SPACE if character == " " else character for character in self.characters])

    def save(self, folder: Path) -> None:
        """Write `tokens.txt`."""
        _write_names(folder, self.names)

    def encode(self, text: str) -> list[int]:
        """Tokens of a transcript."""
        return [self._numbers.get(character, UNKNOWN) for character in text]

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens."""
        units = range(FIRST_UNIT, self.vocabulary - 1)
        return "".join(
            self.characters[token - FIRST_UNIT] if token in units else UNKNOWN_TEXT
            for token in tokens
        )


class PieceTokenizer:
    """SentencePiece pieces (Kudo and Richardson 2018, arXiv 1808.06226), by byte-pair merges."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # SentencePiece numbers its own <unk> 0; its pieces begin at 1.
        self._shift = FIRST_UNIT - 1

    @classmethod
    def learn(cls, texts: list[str], size: int, cache: Path) -> PieceTokenizer:
        """Learn `size` pieces from the texts, or take what the same texts gave before."""
        key = hashlib.blake2b(json.dumps([size, texts]).encode(), digest_size=16).hexdigest()
        file = cache / f"{key}.model"
        if not file.is_file():
            write_atomically(file, _learn_pieces(texts, size))
        return cls(file.read_bytes())

    @property
    def vocabulary(self) -> int:
        """Number of tokens, the three special ones included."""
        return self._shift + int(self._processor.get_piece_size()) + 1

    @property
    def names(self) -> list[str]:
        """What the tokens are called: the pieces."""
        return _names([
            self._processor.id_to_piece(token - self._shift)
            for token in range(FIRST_UNIT, self.vocabulary - 1)
        ])  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write `tokens.txt` and `bpe.model`."""
        _write_names(folder, self.names)
        write_atomically(folder / MODEL, self._model)

    def encode(self, text: str) -> list[int]:
        """Tokens of a transcript."""
        return [piece + self._shift if piece else UNKNOWN for piece in self._processor.encode(text)]

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens."""
        units = range(FIRST_UNIT, self.vocabulary - 1)
        pieces = [
            self._processor.id_to_piece(token - self._shift)
            if token in units
            else f"▁{UNKNOWN_TEXT}▁"
            for token in tokens
        ]
        return " ".join("".join(pieces).replace("▁", " ").split())


def _learn_pieces(texts: list[str], size: int) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size + 1,  # and <unk>
            model_type="bpe",
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            num_threads=1,  # the pieces must not depend on the machine
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        characters = len(Counter("".join(texts)))
        raise InputError(
            f"tokens.size: {size} pieces cannot be learnt from the training transcripts, "
            f"which have {characters} different characters; choose a number above "
            f"that, and below the number of different words and parts of words ({error})"
        ) from error
    return model.getvalue()


def learn_tokenizer(config: TokenConfig, texts: list[str], cache: Path) -> Tokenizer:
    """The tokenizer that the configuration asks for, learnt from the training transcripts."""
    if config.kind == "character":
        return CharacterTokenizer.learn(texts)
    if config.size is None:
        raise InputError("tokens.size: give the number of pieces that bpe should learn")
    return PieceTokenizer.learn(texts, config.size, cache)


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that was saved in a folder; `InputError` where none was."""
    try:
        if (folder / MODEL).is_file():
            return PieceTokenizer((folder / MODEL).read_bytes())
        names = (folder / NAMES).read_bytes().decode().split("\n")[:-1]
    except FileNotFoundError:
        raise InputError(f"{folder}: there is no {NAMES} of a tokenizer") from None
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise InputError(f"{folder}: its files are damaged ({error})") from None
    return CharacterTokenizer(
        "".join(" " if name == SPACE else name for name in names[FIRST_UNIT:-1])
    )


def _names(units: list[str]) -> list[str]:
    return [BLANK_TEXT, UNKNOWN_TEXT, *units, BOUNDARY_TEXT]


def _write_names(folder: Path, names: list[str]) -> None:
    write_atomically(folder / NAMES, "".join(f"{name}\n" for name in names))
