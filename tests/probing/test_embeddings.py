"""Pooled hidden states of models of several architectures, against direct calls without padding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import randomise
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAModel, HyenaDNATokenizer
from hyenadna_hf.baselines.kmer_tokenizer import kmer_tokenizer
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.probing.embeddings import POOLINGS, check_layers, count_layers, pooled_states, tokenize

SEQUENCES = ["ACGTACGTACG", "GG", "TTTACA" * 5, "N", "acgturyn" * 3, "GATTACA"]
POOLED = {
    "mean": lambda states: states.mean(0),
    "max": lambda states: states.amax(0),
    "first": lambda states: states[0],
    "last": lambda states: states[-1],
}


class BlurConfig(PretrainedConfig):
    model_type = "blur"
    hidden_size = 6
    max_position_embeddings = 40


class Blur(PreTrainedModel):
    """A model that accepts no mask, and whose outputs depend on both neighbours of a token."""

    config_class = BlurConfig
    base_model_prefix = "blur"

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(16, config.hidden_size)
        self.convolution = nn.Conv1d(config.hidden_size, config.hidden_size, 3, padding=1)
        self.post_init()

    def forward(self, input_ids, output_hidden_states=False):
        embedded = self.embeddings(input_ids)
        last = self.convolution(embedded.mT).mT
        return BaseModelOutput(last, (embedded, last) if output_hidden_states else None)


class OldBlur(Blur):
    """It returns a tuple with the last hidden state, as some models with code of their own do."""

    def forward(self, input_ids, **kwargs):
        return super().forward(input_ids).to_tuple()


def hyenadna(bidirectional=False):
    config = HyenaDNAConfig(
        d_model=12, n_layer=2, max_seq_len=40, filter_order=16, embed_dropout=0.0, bidirectional=bidirectional
    )
    model = (HyenaDNAModel if bidirectional else HyenaDNAForCausalLM)(config)
    return randomise(model).eval(), HyenaDNATokenizer(model_max_length=40, special_tokens_mode="cls_sep")


def bert(kind=BertModel):
    tokenizer = kmer_tokenizer(3, model_max_length=40, special_tokens_mode="cls_sep")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=40,
        pad_token_id=tokenizer.pad_token_id,
    )
    return randomise(kind(config)).eval(), tokenizer


def blur(kind=Blur):
    return randomise(kind(BlurConfig())).eval(), HyenaDNATokenizer(model_max_length=40)


MODELS = {
    "HyenaDNA": hyenadna,
    "bidirectional HyenaDNA": lambda: hyenadna(True),
    "BERT": bert,
    "BERT with a head": lambda: bert(BertForSequenceClassification),
    "no mask": blur,
    "a tuple": lambda: blur(OldBlur),
}


def alone(model, tokenizer, sequence):
    """All hidden states of one sequence, by a direct call."""
    special = model.config.model_type != "hyenadna"
    ids = torch.tensor([tokenizer(sequence, add_special_tokens=special)["input_ids"]])
    with torch.no_grad():
        output = model.base_model(input_ids=ids, output_hidden_states=True)
    return [state[0] for state in (output if isinstance(output, tuple) else output.hidden_states)]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), max_tokens=st.sampled_from([1, 40, 1000]))
def test_every_layer_and_pooling_is_that_of_a_direct_call(name, lengths, max_tokens):
    torch.manual_seed(0)
    model, tokenizer = MODELS[name]()
    sequences = SEQUENCES + [("ACGGTTAACGTNNACGT" * 2)[:length] for length in lengths]
    model.train()
    found = pooled_states(model, tokenizer, sequences, None, POOLINGS, max_tokens=max_tokens)
    assert model.training and all(module.training for module in model.modules())
    model.eval()
    for sequence, vectors in zip(sequences, found, strict=True):
        states = alone(model, tokenizer, sequence)
        expected = [[POOLED[pooling](state).numpy() for pooling in POOLINGS] for state in states]
        np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_it_agrees_with_embed(pooling):
    model, tokenizer = hyenadna()
    found = pooled_states(model, tokenizer, SEQUENCES, [0, 1, -1], [pooling])
    for index, layer in enumerate((0, 1, 2)):
        expected = np.stack(list(embed(model, tokenizer, SEQUENCES, pooling, layer)))
        np.testing.assert_allclose(found[:, index, 0], expected, rtol=1e-4, atol=1e-5)


def test_layers_and_poolings_come_in_the_order_asked_for():
    model, tokenizer = bert()
    whole = pooled_states(model, tokenizer, SEQUENCES, None, POOLINGS)
    assert whole.shape == (6, 3, 4, 8) and whole.dtype == np.float32 and count_layers(model, tokenizer) == 3
    some = pooled_states(model, tokenizer, SEQUENCES, [-1, 0], ["last", "mean"])
    np.testing.assert_array_equal(some, whole[:, [2, 0]][:, :, [3, 0]])
    assert count_layers(*blur(OldBlur)) == 1


def test_long_sequences_are_truncated_and_counted():
    model, tokenizer = bert()  # 40 tokens of 3 bases, two of them special
    sequences = ["ACGTTG" * 30, "ACG" * 38, "ACG" * 39]
    ids, truncated = tokenize(model, tokenizer, sequences)
    assert truncated == 2 and [len(row) for row in ids] == [40, 40, 40]
    assert ids[0][-1] == tokenizer.sep_token_id and ids[1] == ids[2]
    found = pooled_states(model, tokenizer, sequences)
    np.testing.assert_array_equal(found[1], found[2])
    model, tokenizer = hyenadna()
    assert tokenize(model, tokenizer, ["A" * 40, "A" * 41])[1] == 1


def test_overlapping_words():
    """As the first DNABERT reads them: blanks between words of `kmer` bases."""
    model, tokenizer = bert()
    ids, _ = tokenize(model, tokenizer, ["ACGTA"], kmer=3)
    assert ids == [tokenizer("ACG CGT GTA")["input_ids"]]


@pytest.mark.parametrize(
    "layers, poolings, message",
    [
        ([3], ["mean"], "layers: 3 does not exist; the model has the layers 0 to 2, or -1 to -3"),
        ([0, -4], ["mean"], "layers: -4 does not exist"),
        ([0], ["sum"], "poolings: 'sum' is not one of mean, max, first, last"),
    ],
)
def test_bad_arguments(layers, poolings, message):
    with pytest.raises(InputError, match=message):
        pooled_states(*bert(), ["ACGT"], layers, poolings)


@given(st.integers(1, 30), st.data())
def test_layers_are_counted_from_0(count, data):
    layer = data.draw(st.integers(-count, count - 1))
    assert check_layers([layer], count) == [range(count)[layer]] and check_layers(None, count) == list(range(count))
