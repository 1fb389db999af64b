"""What must hold of the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_SHIPPED = {"tests", "benchmarks"}
# In pieces, or this file would find itself. What stands before must not be part of a longer path.
PRIVATE_PATH = re.compile(
    rb"(?<![\w.$}-])/(?:" + rb"work|" + rb"root|" + rb"tmp|" + rb"home/\w+" + rb")/[\w.]"
)


def repository_files() -> list[Path]:
    """Tracked files and those that would be if one said ``git add .``."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    paths = (ROOT / name for name in listing.split("\0") if name)
    return sorted(path for path in set(paths) if path.is_file())


def test_the_pattern_finds_private_paths_and_nothing_else():
    slash = b"/"
    for path in (b"work/main", b"tmp/x", b"home/ann/x", b"root/.cache"):
        assert PRIVATE_PATH.search(b"--out " + slash + path)
    for text in (b"https://host/work/paper", b"/works/x", b"a/work/b", b"and/or", b"/dev/shm"):
        assert not PRIVATE_PATH.search(text)


def test_no_file_names_a_path_of_the_machine_it_was_made_on():
    found = {
        str(path.relative_to(ROOT)): match.group().decode()
        for path in repository_files()
        if (match := PRIVATE_PATH.search(path.read_bytes()))
    }
    assert found == {}


def test_the_package_list_matches_the_folders():
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_SHIPPED
    assert {name for name in folders if any(fnmatch(name, p) for p in patterns)} == folders
    assert {p for p in patterns if any(fnmatch(name, p) for name in folders)} == set(patterns)


def test_linters_look_at_every_shipped_package_with_code():
    shipped = {path.parent.name for path in ROOT.glob("*/__init__.py")} - NOT_SHIPPED - {"configs"}
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) == shipped
    assert shipped <= set(PROJECT["tool"]["mypy"]["packages"])


def test_every_config_parses_to_a_mapping():
    wrong = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "configs").rglob("*.y*ml"))
        if path.suffix != ".yaml" or not isinstance(yaml.safe_load(path.read_text()), dict)
    ]
    assert wrong == []


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_pre_commit_hooks_need_no_network():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert {hook["language"] for repo in hooks for hook in repo["hooks"]} == {"system"}
