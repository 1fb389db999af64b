"""The user's own code by name: ``module:attribute`` and ``path/to/file.py:attribute``."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import operator
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from hw_models.errors import AjpqError

# An error lists so many names of a module.
_NAMED = 5


def is_object_spec(spec: str) -> bool:
    """Whether ``spec`` reads as ``module:attribute`` or ``file.py:attribute``.

    A colon alone does not make one: ``imagefolder:DIR`` and ``torchvision:NAME`` are names with
    an argument, and their owners look for them before they ask this.
    """
    location, _, attribute = spec.rpartition(":")
    return bool(location) and all(part.isidentifier() for part in attribute.split("."))


def load_object(spec: str, what: str) -> object:
    """Import what ``spec`` points to.

    Args:
        spec: ``module:attribute`` (an installed module or one in the current directory) or
            ``file.py:attribute``; the attribute may be dotted.
        what: the kind of thing that is wanted, for the error line, such as ``"target"``.

    Raises:
        AjpqError: the file, module or attribute does not exist, or importing it fails.
    """
    if not is_object_spec(spec):
        raise AjpqError(f"{what} {spec!r}: expected module:attribute or path.py:attribute")
    location, _, attribute = spec.rpartition(":")
    load = _module_from_file if location.endswith(".py") else _module_by_name
    module = load(location, f"{what} {spec!r}")
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        own = [name for name, value in vars(module).items() if _is_defined_in(module, value)]
        public = [name for name in own if not name.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=_NAMED) or public[:_NAMED]
        known = f"; it has {', '.join(near)}" if near else ""
        known += ", ..." if len(public) > len(near) > 0 else ""
        message = f"{what} {spec!r}: {location} has no attribute {attribute!r}{known}"
        raise AjpqError(message) from error


def _is_defined_in(module: ModuleType, value: object) -> bool:
    return getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__name__")


def call_with_accepted(label: str, function: Callable[..., Any], **keywords: Any) -> Any:
    """Call a user's function with those of the ``keywords`` that its signature has room for.

    Args:
        label: what it is, for the error line.

    Raises:
        AjpqError: it raises.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            named |= keywords.keys()
        return function(**{name: value for name, value in keywords.items() if name in named})
    except AjpqError:
        raise
    except Exception as error:  # whatever someone else's code raises
        raise raised_by(label, error) from error


def raised_by(label: str, error: Exception) -> AjpqError:
    """What someone else's code raised, in one line that says where: the last line of the file in
    which that code begins, for what it calls is not its own."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(__file__).parent)
    foreign = [frame.filename for frame in frames if not frame.filename.startswith(own)]
    begins = foreign[0] if foreign else frames[-1].filename
    frame = next(frame for frame in reversed(frames) if frame.filename == begins)
    place = "" if begins == __file__ else f" ({begins}:{frame.lineno})"
    return AjpqError(f"{label}: {type(error).__name__}: {error}{place}")


def _module_by_name(name: str, label: str) -> ModuleType:
    with _importing(Path.cwd(), label):
        return importlib.import_module(name)


def _module_from_file(location: str, label: str) -> ModuleType:
    path = Path(location).expanduser().resolve()
    if not path.is_file():
        raise AjpqError(f"{label}: no file {location}")
    name = _unique_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AjpqError(f"{label}: {location} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it is executed
    try:
        with _importing(path.parent, label):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _unique_name(path: Path) -> str:
    """A module name for one version of one file: an edited file is imported anew."""
    status = path.stat()
    version = f"{path}|{status.st_mtime_ns}|{status.st_size}".encode()
    return f"_ajpq_plugin_{path.stem}_{hashlib.sha256(version).hexdigest()[:12]}"


@contextmanager
def _importing(folder: Path, label: str) -> Iterator[None]:
    """Make ``folder`` importable for a while and turn any failure into one line."""
    entry = str(folder)
    sys.path.append(entry)
    importlib.invalidate_caches()
    try:
        yield
    except AjpqError:
        raise
    except Exception as error:  # whatever the user's file raises is the user's to mend
        reason = " ".join(str(error).split())
        raise AjpqError(f"{label}: import failed: {type(error).__name__}: {reason}") from error
    finally:
        for index in range(len(sys.path) - 1, -1, -1):  # the entry that was added, not an older one
            if sys.path[index] == entry:
                del sys.path[index]
                break
