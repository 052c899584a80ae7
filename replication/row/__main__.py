"""A row of the ledger of one model: `python -m replication.row owner/name`.

Says first whether the whole model can answer by letter, then measures the rest; what was measured
before is not measured again. Writes `data/rows/<model>.json`. Loads no torch before its input is
checked.
"""

import argparse
import subprocess
import sys

from lib import cards
from lib.data import sets, wheels
from lib.evaluation import SIGNAL
from lib.models import machine, registry
from replication import measure, paths, plan, profiles, tables
from replication.analysis import curves
from replication.measure import request
from replication.profiles import Profile
from replication.row import build, check, experiments
from replication.run import batch, execution, job_results
from replication.run.notebooks import TASK_LABELS
from replication.tables import FEWEST, NotMeasured

NOT_ANSWERED = "not asked: the whole model does not answer this by letter"
ERRORS = (ValueError, OSError, wheels.AssetError, sets.DataError, NotMeasured, batch.ResultsLocked)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m replication.row", description=__doc__.split("\n")[0]
    )
    names = "a hub id (owner/name), a folder, a .gguf file or a name"
    parser.add_argument("model", type=registry.canonical, help=names)
    parser.add_argument("--dtype", help=f"of the weights: {', '.join(machine.DTYPES)}")
    parser.add_argument("--limit", type=int, metavar="N", help="cut every count to N, to try it")
    parser.add_argument("--plan", action="store_true", help="print what it takes; measure nothing")
    parser.add_argument(
        "--card", help=f"to plan for: {', '.join(cards.known_cards())}; default: at hand"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return execution.resumable(lambda: checked_row(options))


def checked_row(options: argparse.Namespace) -> int:
    """Check what is asked, then plan or measure the row; return the exit status."""
    try:
        if options.limit is not None and options.limit < FEWEST:
            raise ValueError(f"LIMIT must be at least {FEWEST}: a row has no fewer questions.")
        profile = profiles.get("row", [options.model], options.limit, dtype=options.dtype)
        if options.plan:
            print(plan_of(profile, options.card))
            return 0
        machine.check_gpu()
        wheels.fetch(model for model in profile.models if model in wheels.ASSETS)
        with batch.exclusive_run():
            row = measured(profile)
        file = check.write(row, paths.OUTPUT / "data" / "rows")
        print(f'The row is in {file}. To send it: CONTRIBUTING.md, "A row of your model".')
        return 0
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 2


def measured(profile: Profile) -> dict:
    """Return the row of the profile's one model."""
    (name,) = profile.models
    can_answer = gate(name, profile)
    maps, profile = measure.distances(profile)
    after_gate = experiments.after_gate(can_answer)
    of_run = {"similarity": tables.read("similarity", profile)}
    for number, experiment in enumerate([experiments.whole, *after_gate]):
        if number:
            print(f"[{number}/{len(after_gate)}] {experiment.__name__} …", flush=True)
        of_run[experiment.__name__] = measure.table(experiment, maps, profile)
    return build.row_of(name, of_run, commit(), {"": NOT_ANSWERED})


def gate(name: str, profile: Profile) -> list[str]:
    """Return the tasks that the whole model answers by letter, and print it: of the first questions
    of ARC-Easy after a minute or so, then of all."""
    (first,) = scores(experiments.first, name, profile)
    print(sentence(name, first), flush=True)
    answers = {}
    for score in scores(experiments.whole, name, profile):
        answers[score.task] = curves.gap(score) >= SIGNAL
        print(sentence(name, score), flush=True)
    if not any(answers.values()):
        print("Its row has answers by content, the map and the loss; no cut is asked by letter.")
    return [task for task, is_clear in answers.items() if is_clear]


def scores(experiment: measure.Experiment, name: str, profile: Profile) -> list:
    """Return the scores of an experiment that needs no map."""
    return list(measure.table(experiment, [name], profile).itertuples())


def sentence(name: str, score) -> str:
    """Return what a whole model scores, and whether that is clearly above its floor."""
    gap = curves.gap(score)
    answers = "answers" if gap >= SIGNAL else "does not clearly answer"
    return (
        f"{registry.label(name)} {answers} {TASK_LABELS[score.task]}: {score.value:.2f} of "
        f"{score.n:.0f} questions, {gap:.1f} standard errors above its floor of "
        f"{curves.floor(score):.2f} (at least {SIGNAL} are needed)."
    )


def plan_of(profile: Profile, card_name: str | None) -> str:
    """Return the minutes and the memory of a row on a card, as text; if both tasks are answered by
    letter, which takes longest."""
    (name,), card = profile.models, cards.get_card(card_name)
    model = cards.ModelOnCard(plan.layer_costs(name), profile.quantization, card)
    num_layers = registry.num_layers(name) or len(model.costs.parameters.layers)
    map_like = job_results.AssumedStarts(num_layers)
    every = [experiments.first, experiments.whole]
    every += experiments.after_gate(experiments.BY_LETTER)
    requests = [request.similarity(name, profile)]
    requests += [one for of in every for one in of(name, map_like, profile)]
    unique = {job_results.key_of(one): one for one in requests}
    works = plan.works(model, unique.values())
    minutes = (model.loading + sum(map(card.seconds, works))) / 60
    memory = max(work.memory for work in works) / 1e9
    return (
        f"{registry.label(name)} on {card.name}: {minutes:.0f} minutes, {memory:.1f} GB of "
        f"{card.size}, without what the CPU fits to states. Rates {card.source}."
    )


def commit() -> str | None:
    """Return the commit of this checkout, and whether files are changed; None without git."""
    git = ["git", "-C", str(paths.ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        code = ["status", "--porcelain", "--untracked-files=no", "--", "lib", "replication"]
        changed = subprocess.run([*git, *code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + " and changes" * bool(changed.stdout.strip())


if __name__ == "__main__":
    sys.exit(main())
