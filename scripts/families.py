"""Which families of decoders can be cut: `python -m scripts.families` says it in a table.

Of every causal decoder of the installed transformers it makes a tiny model with random weights, and
saves it as it is published. Its map, a cut in the middle, saving and reading it again are tried;
the logits must be those of the whole model whose dropped layers hand their input on. Encoders, also
with a decoder, are left out. The table is lib/models/families.csv; families that are in it are not
tried again.
"""

import multiprocessing
from tempfile import TemporaryDirectory
from unittest import mock

import pandas as pd
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto import modeling_auto as auto

from lib import paths
from lib.blocks import Block
from lib.models import files, layers, loading
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import save_pruned
from lib.similarity import block_distances

TABLE = paths.ROOT / "lib" / "models" / "families.csv"
BLOCK = Block(3, 2)
SECONDS = 600
SIZES = {  # the names that configurations have for them
    128: "vocab_size unpadded_vocab_size max_position_embeddings n_positions mamba_d_ssm",
    64: "hidden_size n_embd d_model n_inner embedding_dim lru_width ffn_hidden_size",
    32: "intermediate_size ffn_dim attention_head_dim",
    16: "head_dim moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank"
    " qk_rope_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim"
    " linear_head_dim mamba_d_head mamba_headdim mamba_d_state rotary_dim expert_ffn_hidden_size",
    8: "num_hidden_layers n_layer n_layers num_layers num_blocks num_heads mamba_n_heads",
    4: "num_attention_heads n_head n_heads num_experts linear_num_heads"
    " num_local_experts n_routed_experts zero_expert_num linear_num_value_heads",
    2: "num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk"
    " linear_num_key_heads eos_token_id",
    1: "n_group topk_group depth bos_token_id n_shared_experts",
    0: "pad_token_id",
}


def tiny(config_class):
    """Return a configuration of small sizes, as far as it and its parts have them."""
    default, own = config_class(), {}
    for size, names in SIZES.items():
        own |= {name: size for name in names.split() if name in vars(default)}
    for name in default.sub_configs:
        if part := getattr(default, name):
            own[name] = tiny(type(part)).to_dict()
    return config_class(**own)


def outcome(family: str) -> str:
    """Return "ok". Raises ModelError for a refusal, and anything else for what is none."""
    kind = AutoModelForCausalLM
    if family in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        kind = AutoModelForImageTextToText
    try:
        config = tiny(CONFIG_MAPPING[family])
        with torch.device("meta"):
            kind.from_config(config)
    except Exception as error:  # whatever transformers stumbles over
        raise ModelError(f"Not tried: no tiny model can be made ({error!r}).") from error
    layers.check(config)
    ids = torch.randint(3, 100, (2, 12))
    tokenizer = files.tokenizer("smollm2-135m")
    with TemporaryDirectory() as folder, torch.inference_mode():
        kind.from_config(config).save_pretrained(f"{folder}/whole")
        with mock.patch.object(files.Checkpoint, "tokenizer", lambda checkpoint: tokenizer):
            whole, _ = loading.load(f"{folder}/whole", dtype="float32")
        block_distances(whole, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
        save_pruned(whole, tokenizer, BLOCK, f"{folder}/cut")
        saved = AutoModelForCausalLM.from_pretrained(f"{folder}/cut")
        for layer in decoder_layers(whole)[BLOCK.start : BLOCK.stop]:
            layer.register_forward_hook(hand_on, with_kwargs=True)
        smaller, expected = (model(ids, use_cache=False).logits for model in (saved, whole))
        torch.testing.assert_close(smaller, expected)
    return "ok"


def hand_on(layer, args, kwargs, output):
    """A hook that puts a layer's input in place of its output."""
    state = args[0] if args else kwargs["hidden_states"]
    return state if isinstance(output, torch.Tensor) else (state, *output[1:])


def attempt(family: str) -> str:
    """Return the outcome of a family, or in a sentence why there is none."""
    try:
        return outcome(family)
    except ModelError as error:
        return str(error)
    except Exception as error:  # a bug, here or in transformers
        return f"error: {error!r}"


def main() -> None:
    encoders = (
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES | auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    )
    known = dict(pd.read_csv(TABLE).values)
    for family in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if family not in encoders | known:
            with multiprocessing.get_context("fork").Pool(1) as pool:  # one may end its process
                try:
                    known[family] = pool.apply_async(attempt, [family]).get(SECONDS)
                except multiprocessing.TimeoutError:
                    known[family] = f"error: not done after {SECONDS} seconds"
            pd.Series(known, name="outcome").rename_axis("family").to_csv(TABLE)


if __name__ == "__main__":
    main()
