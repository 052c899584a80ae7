"""What transformers 4 does for `scripts.transformers_4`, in a process of its own.

`python -m scripts.read_by_4 configure FOLDER` writes the config.json of a tiny model of each family
that it knows; `… read FOLDER` compares the logits of the checkpoints there with the expected ones.
"""

import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from .tiny import kind, tiny

SECONDS = 300
ROPE_THETA = 50.0  # no family's default: an entry that is not read shows in the logits
EXPECTED = "expected.pt"  # token ids, and the logits of the whole model and of the cut one


def configure(folder: Path) -> str:
    """Write the configuration of a tiny model of the family that the folder is called after."""
    family = folder.name
    if family not in transformers.CONFIG_MAPPING:
        return "does not know it"
    config = tiny(transformers.CONFIG_MAPPING[family])
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if "rope_theta" in vars(part):
            part.rope_theta = ROPE_THETA
    config.architectures = [type(kind(family).from_config(config)).__name__]
    config.save_pretrained(folder / "whole")
    return ""


def read(folder: Path) -> str:
    """Read the whole model and the cut one; return how one differs from what is expected."""
    expected = torch.load(folder / EXPECTED)
    for name, words in (("whole", "the whole model"), ("cut", "the cut model")):
        config = json.loads((folder / name / "config.json").read_text())
        try:
            reader = kind(config["model_type"])
            # as the installed one computed the expected logits: SDPA leaves out Gemma 2's cap
            model = reader.from_pretrained(
                folder / name, dtype=torch.float32, attn_implementation="eager"
            ).eval()
            with torch.inference_mode():
                logits = model(expected["ids"], use_cache=False).logits
        except Exception as error:  # whatever it stumbles over
            return f"cannot read {words}: {type(error).__name__}"
        try:
            torch.testing.assert_close(logits, expected[name])
        except AssertionError:
            return f"reads {words} otherwise"
    return ""


def apart(step: Callable[[Path], str], folder: Path) -> str:
    """Do a step in a process of its own, which it may end."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            return pool.apply_async(step, [folder]).get(SECONDS)
        except Exception as error:  # of the step, or too much time
            return f"not tried: {type(error).__name__}"


def main(step: str, folders: list[str]) -> None:
    transformers.utils.logging.set_verbosity_error()
    steps = {"configure": configure, "read": read}
    print(json.dumps({Path(folder).name: apart(steps[step], Path(folder)) for folder in folders}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
