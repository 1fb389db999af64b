"""A finished run as files for other programs, and the proof that they answer alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ajpq.config.paths import with_full_path
from ajpq.data import Dataset, batches, load_data, split, test_batches
from ajpq.exporters import Format, formats_for
from ajpq.exporters.card import check_card_place
from ajpq.exporters.carried import packed_source
from ajpq.exporters.expected import Verdict
from ajpq.exporters.source import WITH_RANGE, Source, check_result, packed_file
from ajpq.exporters.tflite_file import logit_range
from ajpq.exporters.verification import check_known, record, verify_files
from ajpq.exporters.write import write_files
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.progress import Progress, SilentProgress
from ajpq.reference import simulate
from ajpq.replaying import problem_of
from ajpq.results import record_test
from ajpq.runs.finished import load_finished
from ajpq.runs.folder import save_json
from hw_models.errors import AjpqError
from hw_models.network import Network

VERIFIED = "verified.json"
_RANGE_IMAGES = 500


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is exported, the formats bound to what is known of it, and its images if there are any.

    Attributes:
        stated: top-1 on test images that the run states, in percent.
        ledger: folder whose ledger a look at test images goes to, outside a checkout.
    """

    source: Source
    formats: dict[str, Format]
    dataset: Dataset | None
    stated: float | None = None
    ledger: Path | None = None


def export(
    run: str | Path,
    formats: Sequence[str],
    out: str | Path,
    *,
    license: str | None = None,
    data: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write a compressed network in the given formats, and a model card (``README.md``) beside.

    Args:
        run: a finished run, a folder with a packed file ``model.ajpq``, or a packed file.
        license: of the checkpoint, for the card.
        data: where a run's images lie on this machine, if not where they did; for a packed file
            the images that it is for, whose mean and standard deviation it is then given.
        note: told what is worth knowing of the run.

    Returns:
        The files, in the order of the formats. They are sealed where their format has room:
        :func:`ajpq.exporters.check.inspect` tells later whether they are still the same.

    Raises:
        AjpqError: an unknown format, one that needs more than a packed file, a run that has not
            finished or is damaged, or a README.md of someone else in ``out``.
    """
    run, out = Path(run), Path(out)
    check_known(formats)
    check_card_place(out)
    subject = _subject(run, data, note, SilentProgress())
    if subject.source.output_range is None and WITH_RANGE & set(formats):
        note(
            "the range of the logits in 8 bits is a guess, several times too wide, which costs "
            "accuracy: a packed file does not hold it; export the run, or name images: --data NAME"
        )
    exporters = {name: subject.formats[name].export for name in formats}
    return write_files(subject.source, exporters, out, license)


def check_verifiable(run: Path, data: str | None) -> None:
    """Are there images to verify files of this run or packed file on?

    Raises:
        AjpqError: it is a packed file, and no data are named.
    """
    if packed_file(run) and data is None:
        raise AjpqError(f"{run} holds no images to verify on: name those it is for: --data NAME")


def _subject(
    path: Path, data: str | None, note: Callable[[str], None], progress: Progress
) -> _Subject:
    packed = packed_file(path)
    return _of_packed(packed, data, note) if packed else _of_run(path, data, note, progress)


def _of_run(
    path: Path, data: str | None, note: Callable[[str], None], progress: Progress
) -> _Subject:
    run = load_finished(path, data=data, note=note)
    check_result(run.result)
    problem = problem_of(run, progress)
    network = network_of(problem, run.policy, run.weights)
    baseline = network_of(problem, problem.uniform(8), direct_weights(problem))
    dataset = problem.dataset
    source = Source(
        network,
        run.policy,
        baseline,
        run.stored,
        run.result,
        dataset.mean,
        dataset.std,
        output_range=_searched_range(problem, network),
    )
    known = formats_for(problem.target, source.output_range)
    return _Subject(source, known, dataset, run.result["found"]["top1_test"], path)


def _of_packed(path: Path, data: str | None, note: Callable[[str], None]) -> _Subject:
    source = packed_source(path, note)
    if data is None:
        return _Subject(source, formats_for(None), None)
    dataset = _data_for(source.network, data)
    images, _ = next(batches(dataset, split(dataset, seed=0).validation, _RANGE_IMAGES))
    found = logit_range(simulate(source.network, images))
    source = replace(source, mean=dataset.mean, std=dataset.std, output_range=found)
    return _Subject(source, formats_for(None, found), dataset)


def _data_for(network: Network, spec: str) -> Dataset:
    """Images of the size that a network takes, with as many classes as it tells apart."""
    shape = tuple(network.edges[network.input].shape)
    outputs = tuple(network.edges[network.output].shape)
    square = len(shape) == 3 and shape[1] == shape[2]
    dataset = load_data(with_full_path(spec), image_size=shape[1] if square else None)
    classes = len(dataset.classes)
    if dataset.image_shape != shape or outputs != (classes,):
        raise AjpqError(
            f"data {spec!r} is not what the packed file is for: it takes {shape} and answers "
            f"{outputs}, not {dataset.image_shape} and {(classes,)}"
        )
    return dataset


def formats_of(problem: Problem, network: Network) -> dict[str, Format]:
    """The formats for this target; the range of the logits is that on validation images."""
    return formats_for(problem.target, _searched_range(problem, network))


def _searched_range(problem: Problem, network: Network) -> tuple[float, float]:
    return logit_range(simulate(network, problem.search_sample.images))


def verify(
    run: str | Path,
    formats: Sequence[str],
    out: str | Path,
    *,
    data: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Verdict]:
    """Run the files that :func:`export` wrote on the test images and compare with the reference.

    The result also goes to ``verified.json`` beside the files, and to the test ledger.

    Args:
        run: as of :func:`export`.
        data: as of :func:`export`; a packed file needs it.

    Returns:
        Format -> whether its file keeps what it promises, and the figures.

    Raises:
        AjpqError: an unknown format, a missing package, a run that has not finished or is damaged,
            or one whose network no longer has the accuracy that it states.
    """
    run, out = Path(run), Path(out)
    check_known(formats)
    check_verifiable(run, data)
    progress = progress or SilentProgress()
    subject = _subject(run, data, lambda text: None, progress)
    dataset, policy = subject.dataset, subject.source.policy
    assert dataset is not None
    files = {name: out / subject.formats[name].file for name in formats}
    with progress.phase("verifying the files on the test images"):
        expected, verdicts = verify_files(
            subject.source.network,
            policy,
            files,
            lambda: test_batches(dataset, 500),
            formats=subject.formats,
            on_batch=progress.part,
        )
    ran = {name: found.top1 for name, found in verdicts.items() if found.top1 is not None}
    record_test(
        dataset,
        subject.ledger or out,
        f"{run.name} (exported files)",
        policy.hash if policy else "none",
        {"reference": expected.top1, **ran},
    )
    if subject.stated is not None and expected.top1 != subject.stated:
        raise AjpqError(
            f"{run} does not replay: it states top1_test {subject.stated}, the reference gives "
            f"{expected.top1}"
        )
    save_json(out / VERIFIED, record(expected, files, verdicts))
    return verdicts
