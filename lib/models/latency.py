"""How long a model takes to read a prompt and to write a token."""

import time

import torch


@torch.inference_mode()
def latencies(model, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds to read `prompt` (1, T), and seconds a token to write `new_tokens` more, greedily."""
    prompt = prompt.to(model.device)
    start = now()
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    read = now()
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, cache=out.cache, use_cache=True)
    return read - start, (now() - read) / new_tokens


def now() -> float:
    """The time (s) once all work is done: a GPU works on after the call has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
