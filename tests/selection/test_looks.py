"""Looks at candidates in the midst of their training."""

import pytest
import torch

from ajpq.base import build_problem
from ajpq.config.files import load_recipe, load_search_config
from ajpq.config.schema import ProblemConfig, SearchConfig
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.tuning import Watch, fine_tune
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from ajpq.selection.answers import Answers, without_divergence
from ajpq.selection.contest import contest
from ajpq.selection.executor import InProcess
from ajpq.selection.fidelity import ENOUGH_GAINS, Rival, hoped_for
from ajpq.selection.judge import judge_against, judge_many
from ajpq.selection.looks import gained, images_of_a_look, look_steps, looking
from envs.budget import Budget

SHORT = Calibration(batchnorm_batches=1, range_batches=1, batch_size=64)
TRAINED = Recipe(
    name="trained",
    stages=(
        Stage(mode="psg", steps=40, batch_size=64, learning_rate=0.01),
        Stage(mode="straight_through", grids="learned", steps=20, batch_size=64),
    ),
    calibration=SHORT,
)
NOTHING_GAINED = [(0.0, 0.0)] * ENOUGH_GAINS


@pytest.fixture(scope="module")
def problem():
    stage = Stage(mode="float", epochs=4, batch_size=64, learning_rate=0.1)
    base = Recipe(name="short", stages=(stage,))
    return build_problem(ProblemConfig(target="size-only", criterion="l1", base=base))


def all_right(problem):
    right = torch.ones(len(problem.search_sample.labels), dtype=torch.bool)
    return Rival(Answers(without_divergence(right)))


def test_looks_are_where_they_cost_little():
    shown = 512
    psg = load_recipe("psg-short")
    assert look_steps(psg, 45_000, shown) == ()
    stage = psg.stages[0].model_copy(update={"steps": 100})
    assert look_steps(psg.model_copy(update={"stages": (stage,)}), 45_000, shown) == (25, 50)
    assert look_steps(load_recipe("direct"), 45_000, shown) == ()
    assert look_steps(TRAINED, 1000, 71) == (15, 30)
    assert look_steps(TRAINED, 1000, 0) == ()


def test_hope_is_the_largest_gain_and_never_negative():
    rival = Rival(Answers(without_divergence(torch.ones(100, dtype=torch.bool))), allowed=1.0)
    assert hoped_for(rival, [3.0] * (ENOUGH_GAINS - 1), 50) is None
    assert hoped_for(None, [3.0] * ENOUGH_GAINS, 50) is None
    hoped = hoped_for(rival, [*[3.0] * ENOUGH_GAINS, 7.0], 50)
    assert (len(hoped.answers.sample), hoped.allowed) == (50, 8.0)
    assert hoped_for(rival, [-3.0] * ENOUGH_GAINS, 50).allowed == 1.0


def test_gains_are_counted_on_the_images_of_the_look():
    early = torch.tensor([True, False, False, False])
    right = torch.tensor([True, True, False, False, True, True])
    assert gained([early, early[:2]], right) == (25.0, 50.0)


def test_a_look_changes_nothing_of_what_goes_on(problem):
    policy = problem.uniform(3)
    plain, answers = judge_against(problem, TRAINED, policy)
    looked, same = judge_against(problem, TRAINED, policy, None, None, ())
    assert torch.equal(answers.sample.right, same.sample.right)
    assert plain.gains is None
    assert len(looked.gains) == 2
    assert looked.model_copy(update={"gains": None}) == plain
    (many,) = judge_many(InProcess(problem), TRAINED, [policy], None, ())
    assert many[0] == looked


def test_states_are_shown_at_steps_counted_over_all_stages(problem):
    steps = []
    watch = Watch(on_state=lambda step, state: steps.append(step))
    fine_tune(problem, problem.uniform(4), TRAINED, watch)
    assert steps == list(range(1, 61))


def test_a_hopeless_candidate_is_not_trained_to_the_end(problem, monkeypatch):
    steps = []

    def counted(*arguments):
        inner = looking(*arguments)
        return lambda step, state: (steps.append(step), inner(step, state))

    monkeypatch.setattr("ajpq.selection.judge.looking", counted)
    metrics, answers = judge_against(
        problem, TRAINED, problem.uniform(2), all_right(problem), None, NOTHING_GAINED
    )
    assert steps[-1] == 15
    everything = len(problem.search_sample.labels)
    assert len(answers.sample) == metrics.images <= images_of_a_look(everything)
    assert metrics.top1_val < 100
    assert metrics.packed_bytes > 0
    assert metrics.gains is None


def test_where_training_has_brought_much_it_goes_on(problem):
    metrics, _ = judge_against(
        problem,
        TRAINED,
        problem.uniform(2),
        all_right(problem),
        None,
        [*NOTHING_GAINED, (100.0, 100.0)],
    )
    assert metrics.images in (128, len(problem.search_sample.labels))


def config_of(kl_weight):
    settings = load_search_config("digits", {"kl_weight": kl_weight}).model_dump()
    return SearchConfig.model_validate({**settings, "candidate": TRAINED.model_dump()})


def life(problem, folder):
    """One life of a search whose last candidate is the worst."""
    log = CandidateLog(Journal(folder / "journal.jsonl", 0.0))
    judged = contest(config_of(0.0), problem, log)
    unbound = Budget({}, {}, None, 0.0)
    for bits in (8, 7, 6, 5, 4):
        for activation in (8, 7):
            policy = problem.uniform(bits)
            layers = {
                name: layer.model_copy(update={"activation_bits": activation})
                for name, layer in policy.layers.items()
            }
            policy = policy.model_copy(update={"layers": layers})
            metrics = judged(policy, unbound)
            log.keep(policy, metrics, metrics.top1_val)
    policy = problem.uniform(2)
    found = judged(policy, unbound)
    log.keep(policy, found, found.top1_val)
    return log, found


def test_gains_survive_an_interruption(problem, tmp_path):
    log, last = life(problem, tmp_path)
    assert len(log.gains) >= ENOUGH_GAINS
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[:-1]))
    again, repeated = life(problem, tmp_path)
    assert repeated == last
    assert again.gains == log.gains


def test_trainings_are_looked_at_where_accuracy_alone_is_rewarded(problem, tmp_path):
    policy = problem.uniform(8)
    log = CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0))
    assert contest(config_of(0.1), problem, log)(policy, Budget({}, {}, None, 0.0)).gains is None
