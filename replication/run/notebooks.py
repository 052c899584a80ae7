"""The list of notebooks: what each measures, and the figures it leaves.

A question of `replication/beyond` says itself which notebook draws it, and has the captions of its
figures; figures.csv has those of all others, in the order of the gallery. Imports no torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from lib import evaluation, storage
from replication.beyond import QUESTIONS
from replication.measure import Experiment, damage, dose, experiments
from replication.measure.question import Question
from replication.profiles import Profile


@dataclass(frozen=True)
class Notebook:
    """A notebook, and what it measures of each of `models`, as jobs.

    experiments: all that it asks for, also where another notebook asks the same; a job measures it
    once. Without any, it reads tables only.
    """

    file: str
    figures: tuple[str, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    models: Callable[[Profile], Sequence[str]] = attrgetter("models")
    draws: bool = True  # from results alone, where a job has failed


_NOTEBOOKS = {  # without what the questions add
    "00": Notebook("00_tour", draws=False),
    "01": Notebook(
        "01_similarity_heatmaps",
        ("figure_1a", "figure_1b", "figure_1c", "figure_4", "figure_starts"),
        experiments=(experiments.similarity,),
    ),
    "02": Notebook(
        "02_pruning_curves",
        # 03 and 04 finish these
        (
            *("figure_2_unhealed", "figure_2_arc_easy_unhealed", "figure_3_unhealed"),
            *("figure_5_unhealed", "figure_6_unhealed"),
        ),
        experiments=(experiments.unhealed, experiments.test_split),
    ),
    "03": Notebook(
        "03_healing",
        (
            *("figure_1d", "figure_2", "figure_2_arc_easy", "figure_3"),
            *("figure_6", "figure_dose"),
        ),
        experiments=(experiments.unhealed, experiments.test_split, dose.doses, experiments.healed),
    ),
    "04": Notebook(
        "04_simple_vs_similarity",
        ("figure_5",),
        experiments=(experiments.unhealed, experiments.healed),
    ),
    "05": Notebook(
        "05_ablation_prompts",
        ("figure_7",),
        experiments=(experiments.prompts,),
        models=attrgetter("ablation_models"),
    ),
    "06": Notebook(
        "06_ablation_seeds",
        ("figure_8",),
        experiments=(experiments.seeds, experiments.more_seeds),
        models=attrgetter("ablation_models"),
    ),
    "07": Notebook(
        "07_ablation_lora_rank",
        ("figure_9",),
        experiments=(experiments.ranks, experiments.more_ranks),
        models=attrgetter("rank_models"),
    ),
    "08": Notebook(
        "08_qwen_islands",
        ("figure_islands",),
        experiments=(experiments.similarity,),
        draws=False,
    ),
    "09": Notebook(
        "09_inference_cost",
        ("figure_cost",),
        experiments=(experiments.similarity,),  # not what it times, of which no job has a share
        draws=False,
    ),
    "10": Notebook("10_letters_and_content"),
    "11": Notebook(
        "11_reasoning",
        ("figure_beyond",),
        experiments=(experiments.reasoning, experiments.stories),
        models=attrgetter("study_models"),
    ),
    "12": Notebook(
        "12_which_block",
        experiments=(damage.damage,),
        models=attrgetter("study_models"),
    ),
    "13": Notebook(
        "13_one_layer",
        experiments=(damage.damage,),
        models=attrgetter("study_models"),
    ),
    "14": Notebook("14_repair", models=attrgetter("study_models")),
    "15": Notebook("15_claims", ("figure_claims",)),
}


def with_questions(
    notebooks: Mapping[str, Notebook], questions: Iterable[Question]
) -> dict[str, Notebook]:
    """Return notebooks with what questions measure and draw there; one may be new.

    Raises ValueError for the number of another notebook, and for an experiment that is called like
    another one, whose table it would replace.
    """
    notebooks = dict(notebooks)
    experiments = [one for notebook in notebooks.values() for one in notebook.experiments]
    for question in questions:
        number = question.notebook.partition("_")[0]
        notebook = notebooks.get(number) or Notebook(question.notebook)
        if notebook.file != question.notebook:
            raise ValueError(
                f"Notebook {number} is {notebook.file}: give {question.notebook} another number."
            )
        experiments += question.experiments
        _check_names(experiments, question.notebook)
        notebooks[number] = replace(
            notebook,
            figures=(*notebook.figures, *question.figures),
            experiments=(*notebook.experiments, *question.experiments),
        )
    return notebooks


def _check_names(known: Iterable[Experiment], notebook: str) -> None:
    """Raise ValueError for two experiments of one name: they would share a table. A notebook may
    ask for the same experiment as another one."""
    by_name = {}
    for experiment in known:
        if by_name.setdefault(experiment.__name__, experiment) is not experiment:
            raise ValueError(
                f"There is an experiment {experiment.__name__!r} already: choose another name "
                f"for that of {notebook}."
            )


def captions(questions: Iterable[Question]) -> dict[str, str]:
    """Return the caption of each figure in the order of the gallery: that of the verdicts last."""
    rows = storage.rows(Path(__file__).with_name("figures.csv"))
    *paper, last = [(row["figure"], row["caption"]) for row in rows]
    own = [pair for question in questions for pair in question.figures.items()]
    return dict([*paper, *own, last])


def drawn_by(figure: str) -> list[str]:
    """The numbers of the notebooks that draw a figure, unhealed or finished."""
    names = {figure, f"{figure}_unhealed"}
    return [number for number, notebook in NOTEBOOKS.items() if names & set(notebook.figures)]


NOTEBOOKS = with_questions(_NOTEBOOKS, QUESTIONS)
TASK_LABELS = {name: spec.label for name, spec in evaluation.TASK_SPECS.items()}
FIGURES = {name: (caption, drawn_by(name)) for name, caption in captions(QUESTIONS).items()}
