"""A packed file as a source, and the model card that came with it.

A card lists the SHA-256 of the files beside it. It is carried only with the packed file that it
lists, so that no network is published with the accuracy of another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import yaml

from ajpq import packed
from ajpq.exporters.source import CARD_FILE, PACKED_FILE, Source
from hw_models.errors import AjpqError

MADE_BY = "<!-- written by ajpq -->"
FILES_FOLLOW = "\n## Files\n"
_MOST_BYTES = 1 << 20
_LISTED = re.compile(
    rf"^\| `{re.escape(PACKED_FILE)}` \| packed \| .* \| `([0-9a-f]{{64}})` \|$", re.M
)


def packed_source(path: Path, note: Callable[[str], None] = lambda text: None) -> Source:
    """A packed file and the card beside it.

    Args:
        note: told if the card beside it is left behind.

    Raises:
        AjpqError: it is no packed file, or damaged.
    """
    network, card = packed.load(path), path.with_name(CARD_FILE)
    if path.name != PACKED_FILE or not card.is_file():
        return Source(network)
    text = beginning(card)
    why = _unfit(text, hashlib.sha256(path.read_bytes()).hexdigest())
    if why:
        note(f"{card} is not taken along: {why}")
        return Source(network)
    return Source(network, card=text.partition(FILES_FOLLOW)[0])


def beginning(card: Path) -> str:
    """A card's text; of a file that is too large for a card, the beginning."""
    with card.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _unfit(text: str, digest: str) -> str:
    """Why a card is not that of a packed file; empty if it is."""
    if MADE_BY not in text:
        return "ajpq has not written it"
    if _LISTED.findall(text.partition(FILES_FOLLOW)[2]) != [digest]:
        return f"it is not of this {PACKED_FILE}, whose sha256 begins with {digest[:12]}"
    return ""


def with_license(card: str, license: str | None) -> str:
    """A card with another licence in its front matter and in its text.

    Raises:
        AjpqError: it has no place for one.
    """
    if license is None:
        return card
    front = yaml.safe_dump({"license": license}, allow_unicode=True, width=1 << 16).strip()
    card = _replaced(card, "license: ", front)
    return _replaced(card, "Licence of the checkpoint: ", f"Licence of the checkpoint: {license}.")


def _replaced(text: str, begin: str, line: str) -> str:
    """With ``line`` in place of the first line that begins so."""
    found = re.search(rf"^{begin}.*$", text, re.M)
    if found is None:
        raise AjpqError(f"the card that came with the packed file has no line {begin!r}")
    return text[: found.start()] + line + text[found.end() :]
