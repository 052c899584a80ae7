"""Configurations of tiny models, with any transformers: it imports nothing of the project."""

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto import modeling_auto as auto

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
    1: "n_group num_expert_group topk_group depth bos_token_id n_shared_experts",
    0: "pad_token_id",
}
OF_LATENT_ATTENTION = {"num_key_value_heads": 4}  # where each head has keys and values of its own
BOTH_KINDS = ["linear_attention", "full_attention"] * 4  # a cache needs attention in what is left
OF_FAMILY = {  # what the number of layers does not change in a configuration
    "bamba": {"attn_layer_indices": [1, 5, 7]},
    "gpt_neo": {"attention_types": [[["global", "local"], 4]]},
    "granitemoehybrid": {"layer_types": BOTH_KINDS},
    "kimi_linear": {"layer_types": BOTH_KINDS},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 4},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 4},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny(config_class, **changes):
    """Return a configuration of small sizes, as far as it and its parts have them."""
    default, own = config_class(), {}
    for size, names in SIZES.items():
        own |= {name: size for name in names.split() if name in vars(default)}
    if "kv_lora_rank" in own:
        own |= OF_LATENT_ATTENTION
    for name in default.sub_configs:
        if part := getattr(default, name):
            own[name] = tiny(type(part)).to_dict()
    return config_class(**own | OF_FAMILY.get(default.model_type, {}) | changes)


def kind(family: str):
    """Return the class of transformers that makes a model of a family, with its vision if any."""
    if family in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM
