"""What a result depends on besides its configuration: code, libraries, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("conformer-study", "torch", "torchaudio", "optuna", "mlflow", "numpy")


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `python -m study` is this program, wherever a process starts.

    A `model.py` of the user's in the working directory would be imported in the place of ours.
    """
    places = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(places)}


def code_fingerprint() -> str:
    """A hash of the sources that decide what a trial's result is: network, data and training."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in ("model", "study/data", "study/training"):
        for file in sorted((ROOT / folder).glob("*.py")):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Python and the libraries that compute."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # this package itself, when it runs from its folder
    return found


def git_commit() -> str | None:
    """The commit of the checkout, with a `+` where files differ from it; None outside of one."""
    if not (ROOT / ".git").exists():
        return None  # installed: a repository around it is somebody else's

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's git, wherever it is
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: str) -> str:
    """The machine in words: a GPU's name, or the processor and its cores."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {cores()} cores"


def named_gpus() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names; None where it says nothing."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if given is None else [name.strip() for name in given.split(",") if name.strip()]


def gpus() -> int:
    """The NVIDIA GPUs that this process may use, as far as can be told without importing torch."""
    named = named_gpus()
    if named is not None:
        return len(named)
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
