"""Verify exported files: run each on the same images and compare it with the reference."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ajpq.exporters import FORMATS, Format
from ajpq.exporters.expected import Batches, Expected, Verdict, expected_of
from ajpq.exporters.packages import MissingPackageError
from ajpq.policy import CompressionPolicy
from hw_models.errors import UnknownNameError
from hw_models.network import Network

OnBatch = Callable[[str, int, int], None]
"""What is under way, batches done, batches in all."""


def verify_files(
    network: Network,
    policy: CompressionPolicy | None,
    files: Mapping[str, Path],
    batches: Batches,
    *,
    formats: Mapping[str, Format] = FORMATS,
    on_batch: OnBatch = lambda label, done, total: None,
) -> tuple[Expected, dict[str, Verdict]]:
    """Run exported files of a network on images.

    Args:
        files: format name -> file.
        batches: every call gives the same images and labels again. Whoever passes test images
            writes it down in the ledger.
        formats: see :func:`ajpq.exporters.formats_for`.

    Returns:
        The reference's answers, and a verdict by format. A file that cannot be loaded or run has a
        verdict too.

    Raises:
        AjpqError: an unknown format, or a missing package.
    """
    check_known(files)
    count = sum(1 for _ in batches())
    total = count * (1 + len(files))

    def reporter(label: str, before: int) -> Callable[[], None]:
        done = iter(range(before + 1, before + count + 1))
        return lambda: on_batch(label, next(done), total)

    expected = expected_of(network, policy, batches, reporter("the reference", 0))
    verdicts = {}
    for number, (name, path) in enumerate(files.items(), 1):
        watched = dataclasses.replace(expected, on_batch=reporter(name, number * count))
        verdicts[name] = _verdict(formats[name], path, watched)
    return expected, verdicts


def check_known(names: Iterable[str]) -> None:
    """Is each a format?

    Raises:
        UnknownNameError: with the nearest name.
    """
    for name in names:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)


def _verdict(format: Format, path: Path, expected: Expected) -> Verdict:
    """Whatever a loader or a runtime raises about a file speaks against the file."""
    if not path.is_file():
        return Verdict(False, f"there is no file {path}")
    try:
        return format.verify(path, expected)
    except MissingPackageError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Verdict(False, f"cannot be run: {reason}")


def record(
    expected: Expected, files: Mapping[str, Path], verdicts: Mapping[str, Verdict]
) -> dict[str, Any]:
    """The content of ``verified.json``: which files they were and what came out."""
    return {
        "policy": expected.policy.hash if expected.policy else None,
        "images": len(expected.labels),
        "reference_top1": expected.top1,
        "files": {
            name: {
                "file": files[name].name,
                "bytes": files[name].stat().st_size if files[name].is_file() else None,
                "sha256": _sha256(files[name]),
                **dataclasses.asdict(verdict),
            }
            for name, verdict in verdicts.items()
        },
    }


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
