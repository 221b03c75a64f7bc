import copy
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from reference import randomise

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.inference.tiling import tiles

CONFIG = HyenaDNAConfig(d_model=12, n_layer=3, max_seq_len=70, filter_order=16)
MODEL = randomise(HyenaDNAModel(CONFIG)).eval()
TOKENIZER = HyenaDNATokenizer()
# What it says about special tokens must not matter.
SEP_TOKENIZER = HyenaDNATokenizer(special_tokens_mode="cls_sep")
DNA = st.text("ACGTN", min_size=1, max_size=70)


def hidden_states(sequence, layer=-1, model=MODEL):
    """The plain way: one sequence, alone, all layers."""
    ids = TOKENIZER(sequence, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0].float().numpy()


def pooled(hidden, pooling):
    return {"mean": lambda: hidden.mean(0), "last": lambda: hidden[-1], "none": lambda: hidden}[pooling]()


def assert_near(one, other, tolerance=1e-4):
    assert one.dtype == np.float32 and one.shape == other.shape
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@given(
    st.lists(DNA, max_size=12),
    st.sampled_from(["mean", "last", "none"]),
    st.integers(-4, 3),
    st.booleans(),
    st.integers(1, 200),
)
def test_equals_each_sequence_alone(sequences, pooling, layer, both, max_tokens):
    embedded = list(embed(MODEL, SEP_TOKENIZER, iter(sequences), pooling, layer, both, max_tokens))
    assert len(embedded) == len(sequences)
    for sequence, embedding in zip(sequences, embedded):
        hidden = hidden_states(sequence, layer)
        expected = pooled(hidden, pooling)
        if both:
            other = hidden_states(reverse_complement(sequence), layer)
            expected = (expected + (other[::-1] if pooling == "none" else pooled(other, pooling))) / 2
        assert_near(embedding, expected)


@given(st.text("ACGTN", min_size=1, max_size=200), st.integers(1, 70), st.booleans(), st.data())
def test_tiles_are_stitched_before_pooling(sequence, window, both, data):
    stride = data.draw(st.integers(1, window))
    arguments = {"reverse_complement": both, "window": window, "stride": stride}
    (every_base,) = embed(MODEL, TOKENIZER, [sequence], "none", **arguments)

    def stitched(text):
        return np.concatenate(
            [hidden_states(text[tile.start : tile.end])[tile.kept] for tile in tiles(len(text), window, stride)]
        )

    expected = stitched(sequence)
    if both:
        expected = (expected + stitched(reverse_complement(sequence))[::-1]) / 2
    assert_near(every_base, expected)
    (mean,) = embed(MODEL, TOKENIZER, [sequence], "mean", **arguments)
    assert_near(mean, every_base.mean(0))
    if not both:
        (last,) = embed(MODEL, TOKENIZER, [sequence], "last", **arguments)
        assert_near(last, every_base[-1])


def test_both_strands_of_a_sequence_embed_alike():
    sequence = "ACGTTGCATTAGCNNACGGTA"
    forward, reverse = embed(
        MODEL, TOKENIZER, [sequence, reverse_complement(sequence)], "none", reverse_complement=True
    )
    assert_near(forward, reverse[::-1])


def test_soft_masked_and_ambiguous_letters():
    upper, lower, ambiguous, rna = embed(MODEL, TOKENIZER, ["ACGTN", "acgtn", "acgtR", "ACGUN"])
    assert np.array_equal(upper, lower) and np.array_equal(upper, ambiguous) and np.array_equal(upper, rna)


@pytest.mark.parametrize(
    "model_class", [HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification]
)
def test_a_model_with_a_head_embeds_like_its_base(model_class):
    model = randomise(model_class(CONFIG)).eval()
    (embedding,) = embed(model, TOKENIZER, ["ACGTTGCA"])
    assert_near(embedding, hidden_states("ACGTTGCA", model=model.hyena).mean(0))


def test_adapters_count_and_prompts_are_refused():
    model = randomise(HyenaDNAForCausalLM(CONFIG)).eval()
    (plain,) = embed(model, TOKENIZER, ["ACGTTGCA"])
    lora = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["in_proj"], init_lora_weights=False))
    (adapted,) = embed(lora, TOKENIZER, ["ACGTTGCA"])
    assert np.abs(adapted - plain).max() > 1e-3
    lora.eval()
    assert_near(adapted, hidden_states("ACGTTGCA", model=lora.base_model.model.hyena).mean(0))
    prompted = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(InputError, match="soft prompt"):
        embed(prompted, TOKENIZER, ["ACGT"])


def test_half_precision_and_padding_that_was_trained_with():
    config = copy.deepcopy(CONFIG)
    config.compat_padding = True
    model = randomise(HyenaDNAModel(config)).bfloat16().eval()
    sequences = ["ACGTTGCATTAGC", "AC", "GGCATTACGAA"]
    for layer in (1, -1):
        for sequence, embedding in zip(sequences, embed(model, TOKENIZER, sequences, layer=layer)):
            expected = hidden_states(sequence, layer, model).mean(0)
            assert_near(embedding, expected, tolerance=0.05)


@pytest.mark.parametrize("layer", range(3))
@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
def test_padding_has_no_effect_on_a_bidirectional_model(layer, pooling):
    """It would, without a mask: the bases after the last one are part of its context."""
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=70, filter_order=16, bidirectional=True)
    model = randomise(HyenaDNAModel(config)).eval()
    sequences = ["ACGTTGCA" * 5, "GGATC", "N"]
    for sequence, vector in zip(sequences, embed(model, TOKENIZER, sequences, pooling, layer), strict=True):
        assert_near(vector, pooled(hidden_states(sequence, layer, model), pooling))


def test_the_model_is_given_back_between_embeddings():
    model = HyenaDNAForCausalLM(CONFIG).train()
    model.hyena.backbone.layers[0].eval()
    before = [module.training for module in model.modules()]
    for _ in embed(model, TOKENIZER, ["ACGT"] * 3, layer=1, max_tokens=1):
        assert [module.training for module in model.modules()] == before
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert not model.hyena.backbone.layers[1]._forward_pre_hooks
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("layer", range(4))
def test_models_that_work_in_pieces(monkeypatch, layer):
    monkeypatch.setattr(MODEL.config, "memory", "low")
    sequences = ["ACGTTGCATTAGC", "GGC"]
    for sequence, embedding in zip(sequences, embed(MODEL, TOKENIZER, sequences, "none", layer)):
        assert_near(embedding, hidden_states(sequence, layer))


def test_blocks_above_the_layer_are_not_run():
    model = HyenaDNAModel(CONFIG)
    run = []
    for number, block in enumerate(model.backbone.layers):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    list(embed(model, TOKENIZER, ["ACGT"], layer=2))
    assert run == [0, 1]


def test_reads_and_keeps_no_more_than_it_says():
    read = []

    def sequences():
        for number in range(100_000):
            read.append(number)
            yield "ACGTACGTAC"

    embedded = embed(MODEL, TOKENIZER, sequences(), max_tokens=50)
    next(embedded)
    assert len(read) == 8 * 50 // 10

    def peak(count):
        tracemalloc.start()
        for _ in embed(MODEL, TOKENIZER, ("ACGTACGTAC" * 6 for _ in range(count)), "none", max_tokens=600):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)  # imports and caches
    few, many = peak(400), peak(4000)
    assert many - few < 500_000  # the other 3,600 embeddings are 10.4 MB


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pooling": "max"}, "pooling='max'.*mean, last, none"),
        ({"layer": 4}, "layer=4: this model has 3 blocks"),
        ({"layer": -5}, "layer=-5"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"window": 71}, "window=71: give 1 to 70"),
        ({"window": 10, "stride": 11}, "stride=11: give 1 to 10"),
        ({"stride": 5}, "stride=5.*window"),
        ({"sequences": "ACGT"}, "a single string"),
        ({"sequences": ["ACGT", ""]}, "sequence 1 .*''.*at least one base"),
        ({"sequences": ["ACGT", None]}, "sequence 1 .*None"),
        ({"sequences": ["A" * 71]}, "sequence 0 .*71 bases.*max_seq_len is 70.*window"),
        ({"sequences": ["ACGT", "AC GT"]}, "sequence 1 .*' ' at base 3"),
        ({"sequences": ["AC[SEP]"]}, r"'\[' at base 3"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear is not a HyenaDNA model"),
    ],
)
def test_bad_input_is_refused_before_any_work(arguments, words):
    with pytest.raises(InputError, match=words):
        embed(**{"model": MODEL, "tokenizer": TOKENIZER, "sequences": ["ACGT"], **arguments})


def test_a_bad_sequence_of_a_stream_is_refused_when_it_is_read():
    embedded = embed(MODEL, TOKENIZER, iter(["ACGT", "ACGX"]), max_tokens=1)
    with pytest.raises(InputError, match="sequence 1 .*'X' at base 4"):
        list(embedded)


def test_a_tokenizer_of_words_is_refused():
    def words(text, **_):
        return {"input_ids": [1] * (len(text) - 2)}

    with pytest.raises(InputError, match="one token per base"):
        embed(MODEL, words, ["ACGT"])
