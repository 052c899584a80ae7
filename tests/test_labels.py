"""Right answers and solved examples, against rows that were read by hand in the source data.

Nothing that is expected here is computed by `lib.data`: whoever adds a row reads the question in
the file of the data set and answers it.
"""

from dataclasses import replace

import numpy as np
import pytest
from conftest import real_task

from lib import evaluation

ALL = 10**6  # questions: more than any set has
ARC_BY_LETTER = ("arc_easy_letters", "arc_easy_symbols", "arc_easy_lower")
MMLU_BY_LETTER, SHORT_BY_LETTER = (
    [name, f"{name}_symbols", f"{name}_lower"] for name in ("mmlu", "mmlu_short")
)
BY_LETTER = (*MMLU_BY_LETTER, "mmlu_other", *SHORT_BY_LETTER, *ARC_BY_LETTER)
AT_ONE_POSITION = (*BY_LETTER, "boolq")  # where their choices are compared


# ---- questions and their right answers -----------------------------------------------------

MMLU = {  # the first, some in the middle, the last of 3 subjects with 4 questions each
    "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.": "4",
    "Let G denoted the set of all n x n non-singular matrices": "infinite, non abelian group",
    "most likely to form a structure with the formula XF6": "Sulfur",
    "What are group norms?": (
        "Modes of behaviour that are acceptable to and shared by group members"
    ),
    "What is the term Tuckman uses for reaching consensus as a group?": "Norming",
}
MMLU_OTHER = {  # the same of the questions that are none of those 4
    "Let p = (1, 2, 5, 4)(2, 3) in S_5 . Find the index of <p> in S_5.": "24",
    "Find all c in Z_3 such that Z_3[x]/(x^3 + cx^2 + 1) is a field.": "2",
    "best classified as a heterogeneous reaction?": "C(s) + H2O(g) → H2(g) + CO(g)",
    "Who was a major protagonist of utilitarianism?": "John Stuart Mill",
    "'people make choices regarding how to behave based on values and beliefs'": "Expectancy",
}
MMLU_SHORT = dict(list(MMLU_OTHER.items())[:2])  # of a subject whose prompts are short
BOOLQ = {  # the first, some in the middle, the last of 7
    "does ethanol take more energy make that produces?": "No",
    "is in n out only located in california?": "No",  # also in Arizona, Nevada, Utah, …
    "can we have multiple foreign keys in a table?": "Yes",
    "is india a member of missile technology control regime?": "Yes",  # since June 2016
    "is the lady liberty stamp a forever stamp?": "Yes",
}
ARC_EASY = {  # the first, one in the middle, the last of 6
    "A student hypothesizes that algae are producers.": "Do algae use sunlight to make food?",
    "Which plant part absorbs minerals?": "root",
    "Which object is best used to demonstrate the bending of light": "convex lens",
}
ARC_EASY_ALL = {  # choices that the file numbers 1 to 4; five choices; three
    "A green plant absorbs light. A frog eats flies.": "obtain energy",
    "Which energy resource is considered non-renewable?": "fossil fuels",
    "The force of gravitational attraction between two objects": "masses",
    "A major function of a plant's roots is to": "take in water",
    "Which form of solar radiation causes sunburn?": "Ultraviolet",
    "What is the function of skin on the human body?": (
        "Skin protects the body from harmful substances."
    ),
}
ARC_EASY_TEST = {  # the first, some in the middle, the last of 6
    "Which statement best explains why photosynthesis is the foundation of most food webs?": (
        "Sunlight is the source of energy for nearly all ecosystems."
    ),
    "What has occurred when bubbles form in a liquid that is being heated?": (
        "The boiling point has been reached."
    ),
    "Which term best describes the disease AIDS?": "pandemic",
    "Why are these objects from space usually harmless?": "They burn up high in Earth's atmosphere",
}
HELLASWAG = {  # the first, one in the middle, the last of 7
    "Roof shingle removal: A man is sitting on a roof. He": "starts pulling up roofing on a roof.",
    "Health: How to do hand stretches for carpal tunnel. Do the prayer stretch.": (
        "Try the prayer stretch for early relief of carpal tunnel pain, and to reduce sensations "
        "of numbness and tingling. Begin with your palms pressed together in front of your chest, "
        "below your chin."
    ),
    "How to accessorize a summer white outfit. Don a straw sun hat.": (
        "You can also wear them in darker staples, like navy or red. Bucket hats and newsboy caps "
        "are fitting looks for warm weather as long as the material and color are light."
    ),
}

OF_ARC_EASY = ["arc_easy", *ARC_BY_LETTER, "arc_easy_listed"]
QUESTIONS = [
    ([*MMLU_BY_LETTER, "mmlu_content"], {"mmlu_subjects": 3, "mmlu_questions": 4}, MMLU),
    (["mmlu_other"], {"mmlu_subjects": 3, "mmlu_questions": 4}, MMLU_OTHER),
    (SHORT_BY_LETTER, {"mmlu_subjects": 3, "mmlu_questions": 4}, MMLU_SHORT),
    (["boolq"], {"boolq_questions": 7}, BOOLQ),
    (OF_ARC_EASY, {"arc_easy_questions": 6}, ARC_EASY),
    (OF_ARC_EASY, {"arc_easy_questions": ALL}, ARC_EASY_ALL),
    (["arc_easy_test"], {"arc_easy_test_questions": 6}, ARC_EASY_TEST),
    (["hellaswag"], {"hellaswag_questions": 7}, HELLASWAG),
]
WRITTEN = ("gsm8k", "gsm8k_bpb", "c4")  # further down


def test_every_task_has_rows_and_one_kind():
    of_choices = {name for names, *_ in QUESTIONS for name in names}
    assert {*WRITTEN} | of_choices == set(evaluation.TASK_SPECS)
    for name, spec in evaluation.TASK_SPECS.items():
        assert not spec.signal_task or name.startswith(evaluation.question_set(spec.signal_task))
        own_data = not isinstance(spec.data, str)
        assert evaluation.question_set(name) == (name if own_data else spec.data)
    with pytest.raises(ValueError, match="'mmlu' already"):
        evaluation.register({"mmlu": spec})
    for ask in (evaluation.task, real_task):
        with pytest.raises(ValueError, match="Unknown task 'sciq': choose one of .*mmlu"):
            ask("sciq")


def own_question(example: dict) -> str:
    """The prompt after the solved examples; each of them ends with its answer and an empty line."""
    prompt = example["prompt"]
    last_answer = prompt.rfind("\nAnswer: ")
    return prompt if last_answer < 0 else prompt[prompt.index("\n\n", last_answer) + 2 :]


def the_one(examples, question: str) -> dict:
    """The only one of `examples` that asks `question`."""
    (example,) = (example for example in examples if question in own_question(example))
    return example


def texts_of_choices(name: str, example: dict) -> list[str]:
    """What each choice says; of a letter, what stands after it in the question."""
    choices = [choice.removeprefix(" ") for choice in example["choices"]]
    if name not in BY_LETTER:
        return choices
    lines = own_question(example).splitlines()
    listed = dict(line.split(". ", 1) for line in lines if line[1:3] == ". ")
    return [listed[letter] for letter in choices]


@pytest.mark.parametrize(
    "name, counts, rows",
    [
        pytest.param(name, counts, rows, id=f"{name}{i}")
        for i, (names, counts, rows) in enumerate(QUESTIONS)
        for name in names
    ],
)
def test_the_answer_is_the_one_that_is_right(name, counts, rows):
    """Its text is named by the label, and naming it scores 1; naming any other scores 0."""
    whole = real_task(name, **counts)
    for question, right in rows.items():
        example = the_one(whole.examples, question)
        texts = texts_of_choices(name, example)
        assert texts[example["answer"]] == right and texts.count(right) == 1
        alone = replace(whole, examples=(example,))
        for chosen in texts:
            likelihoods = np.array([0.0 if text == chosen else -1000.0 for text in texts])
            outputs = [likelihoods] if name in AT_ONE_POSITION else list(likelihoods[:, None])
            assert alone.scores([outputs])[0].tolist() == [float(chosen == right)]


def test_a_passage_is_that_of_its_question():
    """The words that answer the question stand in the passage before it."""
    words = {
        "is in n out only located in california?": "Arizona, Nevada, Utah, Texas",
        "is india a member of missile technology": "India joining on 27th of June 2016",
    }
    examples = real_task("boolq", boolq_questions=7).examples
    for question, passage in words.items():
        assert passage in the_one(examples, question)["prompt"]


# ---- answers that are written, and texts ---------------------------------------------------

GSM8K = {  # the first, one in the middle, the last of 4
    "Kylar wants to buy 16 glasses.": ("The discount price of one glass", 8 * 5 + 8 * 3),
    "Gus spent $20.00 at the grocery store.": ("He bought 2 bags of chips", 20 - 4 - 8 - 1),
    "An air conditioner cools a room 2 degrees an hour": (
        "The air conditioner ran for 3 hours on low",
        3 * 2 + 4 * 3 - 2 * 2,
    ),
}


def test_gsm8ks_solution_is_that_of_its_problem():
    """Its likelihood is asked for, and what the model writes is right with its number only."""
    counts = {"gsm8k_questions": 4, "gsm8k_generated": 4, "gsm8k_shots": 5}
    likelihood = real_task("gsm8k_bpb", **counts)
    written = real_task("gsm8k", **counts)
    for problem, (begin, number) in GSM8K.items():
        (solution,) = the_one(likelihood.examples, problem)["choices"]
        assert solution.startswith(f" {begin}")
        assert solution.endswith(f"\n#### {number}")
        example = the_one(written.examples, problem)
        alone = replace(written, examples=(example,))
        for text, value in ((number, 1), (number + 1, 0), (-number, 0)):
            scores, _ = alone.scores([[f"So it is #### {text}"]])
            assert scores.tolist() == [value]


def test_c4_reads_the_documents_of_the_file():
    """The first, the middle and the last of 5, each cut where the profile says."""
    texts = {
        0: "Restore from larger disk to smaller disk | MacRumors Forums",
        2: "PlayerUnknown’s Battlegrounds for smartphones",
        4: "Rescue the children - The County Home News",
    }
    examples = real_task("c4", c4_sequences=5, c4_tokens=7).examples
    assert len(examples) == 5 and {example["max_tokens"] for example in examples} == {7}
    for place, begin in texts.items():
        assert examples[place]["text"].startswith(begin)


# ---- solved examples -----------------------------------------------------------------------

ARC_SOLVED = [  # the five that are shown: question, choices, the right one
    (
        "Which technology was developed most recently?",
        ["cellular telephone", "television", "refrigerator", "airplane"],
        "cellular telephone",
    ),
    (
        "Nerve impulses are transmitted along structures of a neuron as an action potential. "
        "Which part of a neuron receives the stimulation of these impulses?",
        ["myelin sheaths", "dendrites", "nodes of Ranvier", "axons"],
        "dendrites",
    ),
    (
        "James recorded a measurement of 3° Celsius. "
        "Which tool was James most likely using to measure temperature?",
        ["ruler", "thermometer", "graduated cylinder", "triple-beam balance"],
        "thermometer",
    ),
    (
        "When two nitrogen atoms combine, they form a",
        ["mixture.", "compound.", "molecule.", "liquid."],
        "molecule.",
    ),
    (
        "A longitudinal wave, such as a sound wave, can travel through",
        ["solids only.", "liquids only.", "gas, liquids, and solids.", "gas and a vacuum only."],
        "gas, liquids, and solids.",
    ),
]
PSYCHOLOGY_SOLVED = [  # of MMLU's high-school psychology
    (
        "Ani believes that her attitudes and behavior play a central role in what happens to her. "
        "Such a belief is likely to be associated with",
        [
            "a strong superego.",
            "low self-esteem.",
            "low self-efficacy.",
            "an internal locus of control.",
        ],
        "an internal locus of control.",
    ),
    (
        "According to Caplan's model of consultee-centered case consultation, the consultant is "
        "primarily interested in",
        [
            "identifying the causes and solutions of the client's presenting problems",
            "identifying and eliminating the causes of the consultee's difficulties in handling a "
            "problem",
            "establishing a hierarchy of authority to enable effective decision making",
            "presenting a single, well-defined and unambiguous course of action for the consultant "
            "to overcome skills deficits",
        ],
        "identifying and eliminating the causes of the consultee's difficulties in handling a "
        "problem",
    ),
    (
        "While swimming in the ocean, Ivan is frightened by a dark shadow in the water even before "
        "he has the chance to identify what the shadow is. The synaptic connections taking place "
        "during this incident of fright are best described by which of the following?",
        [
            "Messages are sent from the thalamus directly to the amygdala.",
            'Messages are sent from the thalamus to the "what" and "where" pathways.',
            "Messages are sent from the parasympathetic nervous system to the cerebral cortex.",
            "Messages are sent from the frontal lobes to the pituitary gland.",
        ],
        "Messages are sent from the thalamus directly to the amygdala.",
    ),
    (
        "According to the Individuals with Disabilities Education Improvement Act, which of the "
        "following must an educational agency do before it changes the educational placement of a "
        "student with a disability?",
        [
            "Give the child a trial period in the new environment",
            "Notify the parents in writing",
            "Obtain school board approval",
            "Obtain parental consent",
        ],
        "Notify the parents in writing",
    ),
    (
        "Pascale is interested in the processing strategies children use to learn new information. "
        "Pascale would best be classified as what type of psychologist?",
        ["sociocultural", "clinical", "cognitive", "behaviorist"],
        "cognitive",
    ),
]
DUCKS = (
    "Question: Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and "
    "bakes muffins for her friends every day with four. She sells the remainder at the farmers' "
    "market daily for $2 per fresh duck egg. How much in dollars does she make every day at the "
    "farmers' market?\nAnswer: Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\nShe makes "
    "9 * 2 = $<<9*2=18>>18 every day at the farmer’s market.\n#### 18\n\n"
)
ROBE = (
    "Question: A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts "
    "in total does it take?\nAnswer: It takes 2/2=<<2/2=1>>1 bolt of white fiber\nSo the total "
    "amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric\n#### 3\n\n"
)


def by_letter(question: str, choices: list[str], right: str) -> str:
    listed = "".join(f"\n{letter}. {c}" for letter, c in zip("ABCD", choices, strict=True))
    return f"{question}{listed}\nAnswer: {'ABCD'[choices.index(right)]}\n\n"


def by_listed_text(question: str, choices: list[str], right: str) -> str:
    listed = by_letter(question, choices, right).rpartition("Answer: ")[0]
    return f"{listed}Answer: {right}\n\n"


def by_content(question: str, choices: list[str], right: str) -> str:
    return f"Question: {question.strip()}\nAnswer: {right}\n\n"


EVERY = {"mmlu_subjects": 8, "mmlu_questions": ALL, "mmlu_shots": 5}
EVERY |= {"arc_easy_shots": 5, "arc_easy_questions": ALL, "arc_easy_test_questions": ALL}
EVERY |= {"gsm8k_shots": 2, "gsm8k_questions": ALL, "gsm8k_generated": ALL}
SHOWN = {
    "mmlu": [by_letter(*solved) for solved in PSYCHOLOGY_SOLVED],
    "mmlu_content": [by_content(*solved) for solved in PSYCHOLOGY_SOLVED],
    "arc_easy": [by_content(*solved) for solved in ARC_SOLVED],
    "arc_easy_letters": [by_letter(*solved) for solved in ARC_SOLVED],
    "arc_easy_listed": [by_listed_text(*solved) for solved in ARC_SOLVED],
    "arc_easy_test": [by_content(*solved) for solved in ARC_SOLVED],
    "gsm8k": [DUCKS, ROBE],
    "gsm8k_bpb": [DUCKS, ROBE],
}
HEADERS = {  # of that subject; with two spaces in the original
    "mmlu": (
        "The following are multiple choice questions (with answers) about  high school psychology."
        "\n\n"
    ),
    "mmlu_content": "The following are questions (with answers) about high school psychology.\n\n",
}


@pytest.mark.parametrize("name", SHOWN)
def test_solved_examples_end_with_their_right_answer(name):
    """Those of ARC-Easy and GSM8K stand before every question, MMLU's before their subject's."""
    counts = EVERY | {"mmlu_subjects": 2, "mmlu_questions": 1}
    examples = real_task(name, **counts).examples
    if name.startswith("mmlu"):
        examples = examples[-1:]  # the last subject's
    before = HEADERS.get(name, "") + "".join(SHOWN[name])
    assert examples
    for example in examples:
        assert example["prompt"] == before + own_question(example)


@pytest.mark.parametrize("name", SHOWN)
def test_solved_examples_are_never_scored(name):
    """Of all questions that there are, none is among the solved ones that are shown before it."""
    examples = real_task(name, **EVERY).examples
    assert len(examples) > 500
    for example in examples:
        own = own_question(example)
        before = example["prompt"].removesuffix(own)
        assert before.count("\nAnswer: ") >= len(SHOWN[name]) and own not in before
