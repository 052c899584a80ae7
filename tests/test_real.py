"""The embedded 30-layer model itself (make test-all)."""

import pytest

from lib.models import decoder, loading

pytestmark = pytest.mark.real


def test_it_is_the_model_we_think():
    model, tokenizer = loading.load("smollm2-135m", dtype="float32")
    assert len(decoder.decoder_layers(model)) == 30
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    likeliest = model(ids).logits[0, -1].argmax()
    assert tokenizer.decode(likeliest) == " Paris"
