"""Which families of decoders can be cut: `python -m scripts.families` makes the table anew.

Of every causal decoder of the installed transformers it makes a tiny model with random weights, and
saves it as it is published. Encoders, also with a decoder, are left out. The table is
lib/models/families.csv; it has "yes", or why not:

- cut: its distances are measured, and a block is dropped. The logits are those of the whole model
  whose dropped layers hand their input on.
- reloaded: they still are if transformers reads the saved checkpoint.
- written: the text that this checkpoint writes token by token, with a cache of keys and values or
  states, has the logits that it has where all is read anew for each token.
- joined: a healing joins documents in one row; else it pads them.
- folded: a map can be folded into a layer before the cut; else REPAIR=map ends with a sentence.
- transformers_4: transformers 4 reads the saved checkpoint, and computes the same logits
  (scripts/transformers_4.py).

Rows that changed are printed, and then the exit status is 1: ten minutes of one core.
"""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pandas as pd
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.models.auto import modeling_auto as auto
from transformers.utils import logging as transformers_logging

from lib import paths
from lib.blocks import Block
from lib.healing import attention, linear
from lib.models import files, layers, loading
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped, save_pruned
from lib.similarity import block_distances

from . import transformers_4
from .read_by_4 import EXPECTED
from .tiny import kind, tiny

TABLE = paths.ROOT / "lib" / "models" / "families.csv"
COLUMNS = ("cut", "reloaded", "written", "joined", "folded", "transformers_4")
YES, NO = "yes", "no"
BLOCK = Block(3, 2)
TEXTS, TOKENS, WRITTEN = 2, 12, 4
SECONDS = 600


def tiny_model(family: str, **changes):
    """Return a `random_model` of a family; changes: of its sizes."""
    return random_model(tiny(CONFIG_MAPPING[family], **changes))


def random_model(config):
    """Return a model in whose layers weights and biases do something."""
    torch.manual_seed(0)
    model = kind(config.model_type).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.normal_(std=0.1)
    return model


def outcome(family: str) -> dict[str, str]:
    """Return a row of the table without its name. Raises ModelError where nothing can be tried."""
    try:
        config = tiny(CONFIG_MAPPING[family])
        with torch.device("meta"):
            kind(family).from_config(config)
    except Exception as error:  # whatever transformers stumbles over
        raise ModelError(f"Not tried: no tiny model can be made ({error!r}).") from error
    layers.check(config)
    tokenizer = files.tokenizer("smollm2-135m")
    with TemporaryDirectory() as folder:
        tiny_model(family).save_pretrained(f"{folder}/whole")
        with mock.patch.object(files.Checkpoint, "tokenizer", lambda checkpoint: tokenizer):
            whole, _ = loading.load(f"{folder}/whole", dtype="float32")
        steps = {
            "cut": lambda: cut(whole),
            "reloaded": lambda: reloaded(whole, tokenizer, f"{folder}/cut"),
            "written": lambda: written(f"{folder}/cut"),
            "joined": lambda: attention.can_join_documents(whole, TOKENS),
            "folded": lambda: linear.can_fold(whole, BLOCK.start - 1),
        }
        return {column: in_words(step) for column, step in steps.items()}


def cut(whole) -> bool:
    """Drop a block. Raises AssertionError for other logits than expected."""
    ids = example()
    block_distances(whole, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    with dropped(whole, BLOCK), torch.inference_mode():
        logits = whole(ids, use_cache=False).logits
    torch.testing.assert_close(logits, expected_logits(whole, ids))
    return True


def reloaded(whole, tokenizer, folder: str) -> bool:
    """Save the model without a block, and read it. Raises AssertionError for other logits."""
    save_pruned(whole, tokenizer, BLOCK, folder)
    saved, ids = AutoModelForCausalLM.from_pretrained(folder), example()
    with torch.inference_mode():
        logits = saved(ids, use_cache=False).logits
    torch.testing.assert_close(logits, expected_logits(whole, ids))
    return True


def written(folder: str) -> bool:
    """Write with the saved model. Raises AssertionError for other logits with a cache."""
    saved, logits = AutoModelForCausalLM.from_pretrained(folder), []
    settings = {"do_sample": False, "min_new_tokens": WRITTEN, "max_new_tokens": WRITTEN}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    for use_cache in (True, False):
        text = saved.generate(example(), use_cache=use_cache, **settings)
        logits.append(torch.stack(text.logits))
    torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
    return True


def write_whole_and_cut(folder: Path) -> None:
    """Write a model of the config.json in folder/whole, that of transformers 4, and cut it.

    Beside them: token ids, and the logits that both checkpoints have to have.
    """
    configuration = (folder / "whole" / "config.json").read_text()
    random_model(AutoConfig.from_pretrained(folder / "whole")).save_pretrained(folder / "whole")
    (folder / "whole" / "config.json").write_text(configuration)
    tokenizer = files.tokenizer("smollm2-135m")
    with mock.patch.object(files.Checkpoint, "tokenizer", lambda checkpoint: tokenizer):
        whole, _ = loading.load(str(folder / "whole"), dtype="float32")
    ids = example()
    with torch.inference_mode():
        logits = whole(ids, use_cache=False).logits
    tensors = {"ids": ids, "whole": logits, "cut": expected_logits(whole, ids)}
    torch.save(tensors, folder / EXPECTED)
    save_pruned(whole, tokenizer, BLOCK, folder / "cut")


def example() -> torch.Tensor:
    """Return token ids of texts, always the same."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(3, 100, (TEXTS, TOKENS), generator=draw)


@torch.inference_mode()
def expected_logits(whole, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of the whole model, the layers of whose block hand their input on."""
    block = decoder_layers(whole)[BLOCK.start : BLOCK.stop]
    hooks = [layer.register_forward_hook(hand_on, with_kwargs=True) for layer in block]
    logits = whole(ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


def hand_on(layer, args, kwargs, output):
    """A hook that puts a layer's input in place of its output."""
    state = args[0] if args else kwargs["hidden_states"]
    return state if isinstance(output, torch.Tensor) else (state, *output[1:])


def in_words(step: Callable[[], bool]) -> str:
    """Return "yes" or "no", or in a sentence why there is no answer."""
    try:
        return YES if step() else NO
    except ModelError as error:
        return str(error)
    except Exception as error:  # a bug, here or in transformers
        return f"error: {error!r}"


def attempt(family: str) -> dict[str, str]:
    """Return a row of the table without its name; if nothing can be tried, `cut` says why."""
    try:
        return outcome(family)
    except ModelError as error:
        return {"cut": str(error)}
    except Exception as error:  # a bug, here or in transformers
        return {"cut": f"error: {error!r}"}


def apart(step: Callable, argument):
    """Return what a step returns, done in a process of its own, which it may end.

    Raises what it raises, and multiprocessing.TimeoutError.
    """
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply_async(step, [argument]).get(SECONDS)


def attempt_apart(family: str) -> dict[str, str]:
    """Try a family in a process of its own."""
    try:
        return apart(attempt, family)
    except multiprocessing.TimeoutError:
        return {"cut": f"error: not done after {SECONDS} seconds"}


def write_apart(folder: Path) -> None:
    apart(write_whole_and_cut, folder)


def read() -> pd.DataFrame:
    """Return the table: a row a family, a column each of COLUMNS; empty where not tried."""
    return pd.read_csv(TABLE, index_col="family", keep_default_na=False)


def main() -> None:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    encoders = (
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES | auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    )
    families = sorted(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - encoders.keys())
    rows = {family: attempt_apart(family) for family in families}
    saved = [family for family, row in rows.items() if row.get("reloaded") == YES]
    for family, answer in transformers_4.column(saved, write_apart).items():
        rows[family]["transformers_4"] = answer
    table = pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS).fillna("")
    before = read().reindex(table.index.union(read().index), columns=COLUMNS)
    after = table.reindex(before.index)
    changed = before.index[(before.fillna("") != after.fillna("")).any(axis=1)]
    for family in changed:
        print(f"{family}: {list(before.loc[family])} -> {list(after.loc[family])}")
    table.rename_axis("family").to_csv(TABLE)
    sys.exit(f"{TABLE}: {len(changed)} rows changed." if len(changed) else 0)


if __name__ == "__main__":
    main()
