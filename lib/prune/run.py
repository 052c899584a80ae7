"""`prune`: a model in, a smaller checkpoint out, by the steps of `steps` and the `sizes`."""

import shutil
from pathlib import Path

from .. import storage
from ..blocks import UNPRUNED
from ..evaluation import Task
from ..models import files, loading
from . import card, sizes, steps
from .options import Options


def prune(options: Options, out: str | Path) -> dict:
    """Write the smaller model into the folder `out`; return the record that lies there, too.

    Its `versions`, the whole, the cut, the mapped and the saved model, which is healed: layers,
    parameters, GB of weights, and of each task [value, standard error], and those of the difference
    to the whole. With `nf4` all are packed. A healing that was killed goes on where it was.
    Raises ValueError, OSError or RuntimeError with one sentence; `out` is then as it was before.
    """
    out, called = Path(out).expanduser(), options
    steps.check_out(options, out)
    checkpoint, tasks = steps.check(options), options.scored()
    base = card.read_base(options.model, checkpoint.folder)
    with steps.work_folder(out) as folder:
        print(*base.unread, f"What is done is kept in {folder}.", sep="\n", flush=True)
        digests = files.digests(checkpoint, folder)
        revision = storage.listing_digest(digests) if digests else checkpoint.source.revision
        rows, table = table_of_sizes(options, checkpoint, tasks, folder, revision)
        if called.sizes:
            return {"sizes": rows, "folder": str(table)}
        if rows:
            size = sizes.choose(options, rows)
            print(f"{size} of {checkpoint.num_layers} layers are dropped.", flush=True)
            options = options.without_budget(size)  # from here on as if LAYERS said so
        own = folder / options.key(revision)
        if not (own / "weights").exists():
            steps.check_room(options, checkpoint, out)
        work = steps.Work(options, tasks, own)
        block, adapter = steps.cut(work)
        loading.release()  # before the original weights are read
        weights = steps.save(work, block, adapter, checkpoint.dtype)
        work.score(*work.load(weights), {"saved": UNPRUNED})
        for file in sizes.FILES if rows else ():
            shutil.copyfile(table / file, weights / file)
        results = {"revision": revision, "files": digests, "sizes": rows} | work.results
        results["reads_chats"] = options.reads_chats
        record = card.write(called, checkpoint, base, results, weights)
        weights.rename(out)
        return record


def table_of_sizes(
    options: Options, checkpoint, tasks: list[Task], folder: Path, revision: str
) -> tuple[list[dict], Path | None]:
    """Return the rows of the table of sizes and its folder; none where LAYERS says the size."""
    if options.layers:
        return [], None
    most = options.without_budget(checkpoint.num_layers - 1)
    steps.check_room(most, checkpoint, folder.with_suffix(""))
    if options.gb is not None:
        steps.check_gb(options.gb, checkpoint)
    own = [task.examples for task in tasks if task.own_spec]  # whose files may have changed
    digest = f"-{storage.text_digest(repr(own))[:8]}" if own else ""
    table = folder / f"sizes-{options.table_key(revision)}{digest}"
    rows = sizes.measure(steps.Work(options, tasks, table), checkpoint)
    loading.release()
    return rows, table
