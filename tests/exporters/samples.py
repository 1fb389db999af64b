"""Small exported files of every kind, and the network they are of."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from ajpq.exporters import EXPORTERS
from ajpq.exporters.seal import seal
from ajpq.exporters.source import Source, statement
from ajpq.policy import uniform_policy
from hw_models.network import Network
from tests.exporters.calibrated_builder import Builder

POLICY = uniform_policy({"conv": 8}, 4)


def small_network() -> Network:
    """A convolution with rows of 0, 3 and 4 bits and a classifier: about a thousand weights."""
    net = Builder()
    x = net.layer("conv", "input", 8, widths=(0, 3, 4), activation="relu")
    return net.classifier(net.layer("conv", x, 12, widths=(4, 8), activation="relu"))


def source() -> Source:
    """What an export of :func:`small_network` starts from."""
    return Source(small_network(), POLICY, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def exported(name: str, folder: Path) -> Path:
    """A sealed file of a format; the extra ``test`` has the packages for all of them."""
    path = written(name, folder)
    seal(path, statement(source()))
    return path


def written(name: str, folder: Path) -> Path:
    """The same before it is sealed."""
    of = source()
    folder.mkdir(parents=True, exist_ok=True)
    return EXPORTERS[name](of.network, of.policy, folder)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()
