"""Templates of a model card, filled with names that may be anything."""

from __future__ import annotations

import re
from typing import Any

import jinja2

from ajpq.exporters.readers.content import plain

_LONGEST = 300
_MARKUP = re.compile(r"[\\`*<>\[\]|]")


def rendered(template: str, **content: Any) -> str:
    """A template of ``ajpq/templates``; it has :func:`text` and :func:`code` as filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ajpq", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": text, "code": code}
    return environment.get_template(template).render(**content)


def text(value: object) -> str:
    """On one line, bounded, without markup: as it stands in a heading or a table."""
    return _MARKUP.sub(r"\\\g<0>", plain(str(value), _LONGEST))


def code(value: object) -> str:
    """The same for what stands between backticks."""
    return plain(str(value), _LONGEST).replace("`", "'")
