"""A finished run as files for other programs, and the proof that they answer alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ajpq.data import test_batches
from ajpq.exporters import Format, formats_for
from ajpq.exporters.card import check_card_place
from ajpq.exporters.carried import packed_source
from ajpq.exporters.expected import Verdict
from ajpq.exporters.source import Source, packed_file
from ajpq.exporters.tflite_file import logit_range
from ajpq.exporters.verification import check_known, record, verify_files
from ajpq.exporters.write import write_files
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.progress import Progress, SilentProgress
from ajpq.reference import simulate
from ajpq.replaying import problem_of
from ajpq.results import record_test
from ajpq.runs.finished import FinishedRun, load_finished
from ajpq.runs.folder import save_json
from hw_models.errors import AjpqError
from hw_models.network import Network

VERIFIED = "verified.json"


def export(
    run: Path,
    formats: Sequence[str],
    out: Path,
    *,
    license: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write a compressed network in the given formats, and a model card (``README.md``) beside.

    Args:
        run: a finished run, a folder with a packed file ``model.ajpq``, or a packed file.
        license: of the checkpoint, for the card.
        note: told what is worth knowing of the run.

    Returns:
        The files, in the order of the formats. They are sealed where their format has room:
        :func:`ajpq.exporters.check.inspect` tells later whether they are still the same.

    Raises:
        AjpqError: an unknown format, one that needs more than a packed file, a run that has not
            finished or is damaged, or a README.md of someone else in ``out``.
    """
    check_known(formats)
    check_card_place(out)
    packed = packed_file(run)
    if packed:
        source, known = packed_source(packed, note), formats_for(None)
    else:
        finished = load_finished(run, note=note)
        problem = problem_of(finished)
        network = network_of(problem, finished.policy, finished.weights)
        source, known = _source(finished, problem, network), formats_of(problem, network)
    return write_files(source, {name: known[name].export for name in formats}, out, license)


def _source(run: FinishedRun, problem: Problem, network: Network) -> Source:
    baseline = network_of(problem, problem.uniform(8), direct_weights(problem))
    data = problem.dataset
    return Source(network, run.policy, baseline, run.stored, run.result, data.mean, data.std)


def formats_of(problem: Problem, network: Network) -> dict[str, Format]:
    """The formats for this target; the range of the logits is that on validation images."""
    logits = simulate(network, problem.search_sample.images)
    return formats_for(problem.target, logit_range(logits))


def verify(
    run_dir: Path, formats: Sequence[str], out: Path, *, progress: Progress | None = None
) -> dict[str, Verdict]:
    """Run the files that :func:`export` wrote on the test images and compare with the reference.

    The result also goes to ``verified.json`` beside the files, and to the test ledger.

    Returns:
        Format -> whether its file keeps what it promises, and the figures.

    Raises:
        AjpqError: an unknown format, a missing package, a run that has not finished or is damaged,
            or one whose network no longer has the accuracy that it states.
    """
    check_known(formats)
    progress = progress or SilentProgress()
    run = load_finished(run_dir)
    problem = problem_of(run, progress)
    network = network_of(problem, run.policy, run.weights)
    known = formats_of(problem, network)
    files = {name: out / known[name].file for name in formats}
    with progress.phase("verifying the files on the test images"):
        expected, verdicts = verify_files(
            network,
            run.policy,
            files,
            lambda: test_batches(problem.dataset, 500),
            formats=known,
            on_batch=progress.part,
        )
    ran = {name: found.top1 for name, found in verdicts.items() if found.top1 is not None}
    answers = {"reference": expected.top1, **ran}
    record_test(problem, run_dir, f"{run_dir.name} (exported files)", run.policy.hash, answers)
    stated = run.result["found"]["top1_test"]
    if expected.top1 != stated:
        raise AjpqError(
            f"{run_dir} does not replay: it states top1_test {stated}, the reference gives "
            f"{expected.top1}"
        )
    save_json(out / VERIFIED, record(expected, files, verdicts))
    return verdicts
