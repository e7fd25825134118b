"""Intervals and tests, against NIST's sc_stats, scipy's own intervals and planted truth."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reports.significance import error_rate_interval, holm, mapsswe, paired_difference, segments

WORDS = tuple("abcdefghijkl")
SC_STATS = ["sc_stats"] if shutil.which("sc_stats") else ["sctk", "sc_stats"]
SCLITE = ["sclite"] if shutil.which("sclite") else ["sctk", "sclite"]
needs_sctk = pytest.mark.skipif(
    shutil.which(SC_STATS[0]) is None, reason="sc_stats is not installed (Debian: sctk)"
)


def test_no_errors_in_few_words_may_be_luck() -> None:
    found = error_rate_interval(np.zeros((2, 4)), np.full(4, 25.0), list("aabb"))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(3 / 100, rel=0.01)  # the rule of three


def test_one_utterance_has_no_spread_that_could_be_seen() -> None:
    found = error_rate_interval(np.array([[3.0]]), np.array([2.0]), ["a"])
    assert found.value == 1.5  # more errors than words
    assert found.low <= 1.5 <= found.high


def test_equal_systems_do_not_differ() -> None:
    errors = np.array([[1.0, 0.0, 2.0]])
    difference, p = paired_difference(errors, errors, np.full(3, 4.0), list("abc"))
    assert (difference.value, difference.low, difference.high, p) == (0, 0, 0, 1)


def test_mapsswe_of_nothing_decides_nothing() -> None:
    assert mapsswe([]).p == 1
    assert mapsswe([(1, 1), (2, 2)]).p == 1


def test_mapsswe_of_differences_that_are_all_alike_counts_their_signs() -> None:
    assert mapsswe([(1, 0)] * 20).p == pytest.approx(2**-19)
    assert mapsswe([(1, 0)]).p == 1


def test_mapsswe_is_a_z_test_of_the_paired_differences() -> None:
    pairs = [(1, 0), (2, 2), (0, 1), (3, 1), (1, 0), (2, 0)]
    t = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs])
    assert mapsswe(pairs).z == pytest.approx(t.statistic)


def test_segments_end_where_both_have_two_words_right() -> None:
    wrong = [("a", "x"), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "y")]
    right = [(word, word) for word in "abcde"]
    assert segments(wrong, right) == [(1, 0), (1, 0)]
    close = [("a", "x"), ("b", "b"), ("c", "y"), ("d", "d")]
    assert segments(close, right[:4]) == [(2, 0)]
    inserted = [("a", "a"), ("b", "b"), ("", "um"), ("c", "c")]
    assert segments(inserted, right[:3]) == [(1, 0)]


def test_holm_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def _heard(reference: list[str], rate: float, rng: random.Random) -> list[str]:
    found = []
    for word in reference:
        luck = rng.random()
        if luck < 0.3 * rate:
            continue
        found.append(rng.choice(["zulu", "yankee"]) if luck < 0.8 * rate else word)
        found += ["um"] if luck > 1 - 0.2 * rate else []
    return found


def _sclite(folder: Path, name: str, rows: list[list[str]]) -> list[list[tuple[str, str]]]:
    """Align with sclite, and return its alignments."""
    lines = [f"{' '.join(row)} (spk{i % 10:02d}_{i:04d})\n" for i, row in enumerate(rows)]
    (folder / f"{name}.trn").write_text("".join(lines))
    command = [*SCLITE, "-r", "ref.trn", "trn", "-h", f"{name}.trn", "trn", "-i", "rm"]
    subprocess.run([*command, "-o", "sgml", "-O", ".", "-n", name], cwd=folder, check=True)
    text = (folder / f"{name}.sgml").read_text()
    found = {}
    for number, path in re.findall(r'<PATH id="\(spk\d+_(\d+)\)".*?>\n(.*?)\n</PATH>', text, re.S):
        steps = re.findall(r'([CSDI]),("[^"]*")?,("[^"]*")?', path)
        found[int(number)] = [(r.strip('"'), h.strip('"')) for _, r, h in steps]
    return [found[number] for number in range(len(rows))]


@needs_sctk
@pytest.mark.parametrize(("rate", "other"), [(0.12, 0.16), (0.3, 0.31), (0.05, 0.05)])
def test_mapsswe_agrees_with_sc_stats(tmp_path: Path, rate: float, other: float) -> None:
    rng = random.Random(1)
    references = [[rng.choice(WORDS) for _ in range(rng.randint(8, 25))] for _ in range(200)]
    (tmp_path / "ref.trn").write_text(
        "".join(f"{' '.join(r)} (spk{i % 10:02d}_{i:04d})\n" for i, r in enumerate(references))
    )
    one = _sclite(tmp_path, "a", [_heard(r, rate, rng) for r in references])
    two = _sclite(tmp_path, "b", [_heard(r, other, rng) for r in references])
    ours = mapsswe([pair for a, b in zip(one, two, strict=True) for pair in segments(a, b)])
    both = (tmp_path / "a.sgml").read_text() + (tmp_path / "b.sgml").read_text()
    subprocess.run(
        [*SC_STATS, "-p", "-t", "mapsswe", "-v", "-n", "out"],
        cwd=tmp_path, input=both, text=True, check=True,
    )  # fmt: skip
    told = (tmp_path / "out.stats.mapsswe").read_text()
    found = re.search(r"# segs: (\d+).*?mean: (\S+)\).*?Z Stat: (\S+)\) \(Stat Diff: (\w+)", told)
    assert found is not None
    assert ours.segments == int(found[1])
    assert abs(ours.mean) == pytest.approx(abs(float(found[2])), abs=6e-4)
    assert abs(ours.z) == pytest.approx(abs(float(found[3])), abs=0.01)
    assert (ours.p < 0.05) == (found[4] == "Yes")


@pytest.mark.parametrize(
    ("groups", "group_spread", "seed_spread"),
    [(20, 0.04, 0.0), (20, 0.04, 0.01), (600, 0.0, 0.007)],
)
def test_intervals_cover_planted_truth(
    groups: int, group_spread: float, seed_spread: float
) -> None:
    """600 utterances of 20 speakers or of one each, and 3 seeds of each of two systems."""
    rng = np.random.default_rng(5)
    words, names = np.full(600, 10.0), [str(i * groups // 600) for i in range(600)]
    each = 600 // groups
    inside, inside_difference = [], []
    for _ in range(300):
        shared = np.repeat(rng.normal(0, group_spread, groups), each)
        own = [np.repeat(rng.normal(0, group_spread / 4, groups), each) for _ in range(2)]
        systems = [
            np.stack(
                [
                    rng.binomial(10, np.clip(mean + shared + own[k] + seed, 0.01, 0.9))
                    for seed in rng.normal(0, seed_spread, 3)
                ]
            ).astype(float)
            for k, mean in enumerate((0.2, 0.22))
        ]
        single = error_rate_interval(systems[0], words, names)
        pair, _ = paired_difference(systems[0], systems[1], words, names)
        inside.append(single.low <= 0.2 <= single.high)
        inside_difference.append(pair.low <= -0.02 <= pair.high)
    # Where seeds do not differ, what looks like it is counted all the same: no interval is too short.
    most = 0.99 if seed_spread else 1.0
    assert 0.93 <= np.mean(inside) <= most
    assert 0.93 <= np.mean(inside_difference) <= most
