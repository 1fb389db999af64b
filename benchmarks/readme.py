"""Keep the README's tables equal to the results that they state.

``python -m benchmarks.readme`` replaces what stands between ``<!-- begin NAME -->`` and
``<!-- end NAME -->`` by a table of ``benchmarks/results/NAME.json``; with ``--check`` nothing is
written, and the exit code is 1 where the README differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

README = Path(__file__).parent.parent / "README.md"
MARKER = re.compile(r"^<!-- (begin|end) (\S+) -->$", re.MULTILINE)
ABSENT = "–"  # noqa: RUF001  a dash, as in any printed table


class ReadmeError(Exception):
    """The README's markers or a result file are wrong; one line that quotes the value."""


def cell(value: Any) -> str:
    """A value as a table shows it: four significant digits, thousands apart, yes or no."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1000):
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _heading(key: str) -> str:
    return cell(key.replace("_", " "))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; columns in order of appearance, numbers to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    right = [all(_is_number(row.get(column)) for row in rows) for column in columns]
    lines = [
        [_heading(column) for column in columns],
        ["---:" if flag else "---" for flag in right],
        *([cell(row.get(column)) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bar_rows(bars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "bar": name.replace("_", " "),
            "measured": bar["value"],
            "set": bar["bar"],
            "holds": "✓" if bar["holds"] else "✗",
        }
        for name, bar in bars.items()
    ]


def _origin(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"`{result['command']}` (seed {result['seed']}) took {cell(result['seconds'])} s on "
        f"{machine['cores']} cores, {machine['processor']}, {machine['instruction_set']}."
    )


def render(result: Mapping[str, Any]) -> str:
    """The rows, the bars if there are any, and where the figures come from."""
    parts = [table(result["rows"])] if result["rows"] else []
    if result["bars"]:
        parts.append(table(_bar_rows(result["bars"])))
    return "\n\n".join([*parts, _origin(result)])


def _load(name: str, results: Path) -> dict[str, Any]:
    path = results / f"{name}.json"
    if not path.is_file():
        raise ReadmeError(f"the README wants {name!r}, but there is no {path.name} in {results}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ReadmeError(f"{path.name} is not JSON: {error}") from error


def regenerate(text: str, results: Path) -> str:
    """The README's text with every marked part made anew.

    Raises:
        ReadmeError: a marker without its partner, a name used twice, a result that is missing.
    """
    markers = list(MARKER.finditer(text))
    pieces, position, seen = [], 0, set()
    for begin, end in zip(markers[::2], [*markers[1::2], None], strict=False):
        name = begin[2]
        if end is None or begin[1] != "begin" or end[1] != "end" or end[2] != name:
            raise ReadmeError(f"marker {begin[0]!r} has no partner")
        if name in seen:
            raise ReadmeError(f"marker {begin[0]!r} stands twice")
        seen.add(name)
        try:
            shown = render(_load(name, results))
        except KeyError as error:
            raise ReadmeError(f"{name}.json lacks {error}") from error
        pieces += [text[position : begin.end()], f"\n{shown}\n"]
        position = end.start()
    return "".join([*pieces, text[position:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check; 0 equal or written, 1 differs, 2 cannot be done."""
    parser = argparse.ArgumentParser(description="Regenerate the README's tables from the results.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        old = options.readme.read_text()
        new = regenerate(old, options.results)
    except (ReadmeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.check and new != old:
        print("the README's tables differ from benchmarks/results/: run `make readme`")
        return 1
    if not options.check:
        options.readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
