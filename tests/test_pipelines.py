"""The pipelines of transformers on saved folders, compared with the model called by hand on each sequence alone."""

import json

import numpy as np
import pytest
import torch
from forked import result_of
from reference import randomise
from transformers import pipeline, set_seed

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

SEQUENCES = ["ACGTTGCATTAGC", "AC", "ggcattacgaaccagt", "NNACGRTT", "A"]
TASKS = {
    "text-generation": HyenaDNAForCausalLM,
    "feature-extraction": HyenaDNAModel,
    "text-classification": HyenaDNAForSequenceClassification,
    "token-classification": HyenaDNAForTokenClassification,
    "fill-mask": HyenaDNAForMaskedLM,
}
LABELS = ["O", "B-exon", "I-exon", "I-intron"]
GENERATION = {"do_sample": False, "max_new_tokens": 6, "return_full_text": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved model and tokenizer for each task."""
    set_seed(0)
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    root = tmp_path_factory.mktemp("pipelines")
    for task, model_class in TASKS.items():
        sizes = {"d_model": 12, "n_layer": 2, "max_seq_len": 40, "filter_order": 16}
        config = HyenaDNAConfig(**sizes, **labels, bidirectional=model_class is HyenaDNAForMaskedLM)
        randomise(model_class(config)).save_pretrained(root / task)
        HyenaDNATokenizer(model_max_length=40).save_pretrained(root / task)
    return root


@pytest.fixture
def make(folders):
    def make(task, **options):
        return pipeline(task, model=str(folders / task), device="cpu", **options)

    return make


def ids_of(sequence):
    return HyenaDNATokenizer()(sequence, return_tensors="pt")["input_ids"]


def by_hand(pipe, sequence):
    with torch.no_grad():
        return pipe.model(input_ids=ids_of(sequence))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_text_generation(make, batch_size):
    pipe = make("text-generation")
    found = pipe(SEQUENCES, batch_size=batch_size, **GENERATION)
    for sequence, [output] in zip(SEQUENCES, found, strict=True):
        ids = ids_of(sequence)
        generated = pipe.model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
        assert output["generated_text"] == pipe.tokenizer.decode(generated, skip_special_tokens=True)
    assert len({output["generated_text"] for [output] in found}) > 1
    (whole,) = pipe("ACGT", **{**GENERATION, "return_full_text": True})
    assert whole["generated_text"].startswith("ACGT")


def test_text_generation_with_the_tokenizer_of_the_published_folders(make):
    """Its [SEP] would end the prompt; the pipeline leaves it out when told to."""
    sep = make("text-generation", tokenizer=HyenaDNATokenizer(special_tokens_mode="sep"))
    found = sep(SEQUENCES, batch_size=3, add_special_tokens=False, **GENERATION)
    assert found == make("text-generation")(SEQUENCES, batch_size=3, **GENERATION)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("task", TASKS)
def test_feature_extraction(make, folders, task, batch_size):
    if task == "feature-extraction":
        pipe = make(task)
    else:  # the base of a model with a head
        pipe = pipeline("feature-extraction", model=str(folders / task), device="cpu")
    for sequence, output in zip(SEQUENCES, pipe(SEQUENCES, batch_size=batch_size), strict=True):
        (features,) = output
        # The pipeline keeps the padding, which stands on the left and has zeros.
        padding = len(features) - len(sequence)
        assert padding == (0 if batch_size == 1 else {13: 3, 2: 14, 16: 0, 8: 0, 1: 7}[len(sequence)])
        assert not np.any(features[:padding])
        torch.testing.assert_close(
            torch.tensor(features[padding:]), by_hand(pipe, sequence).last_hidden_state[0], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_text_classification(make, batch_size):
    pipe = make("text-classification")
    for sequence, output in zip(SEQUENCES, pipe(SEQUENCES, batch_size=batch_size, top_k=None), strict=True):
        probabilities = by_hand(pipe, sequence).logits[0].softmax(-1)
        assert {one["label"] for one in output} == set(LABELS)
        for one in output:
            assert one["score"] == pytest.approx(float(probabilities[LABELS.index(one["label"])]), abs=1e-4)
    (best,) = pipe(SEQUENCES[0])
    assert best["label"] == LABELS[int(by_hand(pipe, SEQUENCES[0]).logits.argmax())]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_fill_mask(make, batch_size):
    """The mask of each sequence, and two masks in one."""
    masked = [f"{sequence[: i + 1]}[MASK]{sequence[i + 2 :]}" for i, sequence in enumerate(SEQUENCES)]
    pipe = make("fill-mask", top_k=16)
    for sequence, output in zip(masked, pipe(masked, batch_size=batch_size), strict=True):
        place = sequence.index("[MASK]")
        probabilities = by_hand(pipe, sequence).logits[0, place].softmax(-1)
        assert sorted(one["token"] for one in output) == list(range(16))
        for one in output:
            assert one["score"] == pytest.approx(float(probabilities[one["token"]]), abs=1e-4)
            if one["token_str"] in "ACGTN":
                original = f"{sequence[:place]}{one['token_str']}{sequence[place + 6 :]}"
                assert one["sequence"] == pipe.tokenizer.decode(ids_of(original)[0])
    two = pipe("AC[MASK]GT[MASK]A", targets=["A", "C"])
    assert [{one["token_str"] for one in output} for output in two] == [{"A", "C"}] * 2


def test_long_sequences_are_cut_when_told_to(make):
    pipe = make("text-classification")
    (cut,) = pipe("ACGTT" * 20, truncation=True)
    (short,) = pipe("ACGTT" * 8)
    assert cut["label"] == short["label"] and cut["score"] == pytest.approx(short["score"], abs=1e-5)
    with pytest.raises(ValueError, match="max_seq_len is 40"):
        pipe("ACGTT" * 20)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_token_classification(make, batch_size):
    pipe = make("token-classification", ignore_labels=[])
    for sequence, output in zip(SEQUENCES, pipe(SEQUENCES, batch_size=batch_size), strict=True):
        probabilities = by_hand(pipe, sequence).logits[0].softmax(-1)
        assert [(one["start"], one["end"]) for one in output] == [(i, i + 1) for i in range(len(sequence))]
        for one, expected in zip(output, probabilities):
            assert one["entity"] == LABELS[int(expected.argmax())]
            assert one["score"] == pytest.approx(float(expected.max()), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_runs_of_bases_of_a_class_are_joined(make, batch_size):
    """By the strategy `simple`; the others take a sequence for one word, as it has no spaces."""
    every_base = make("token-classification", ignore_labels=[])(SEQUENCES)
    pipe = make("token-classification", aggregation_strategy="simple", ignore_labels=[])
    for sequence, bases, output in zip(SEQUENCES, every_base, pipe(SEQUENCES, batch_size=batch_size), strict=True):
        assert [base for group in output for base in range(group["start"], group["end"])] == list(range(len(sequence)))
        for group in output:
            members = bases[group["start"] : group["end"]]
            assert {base["entity"].removeprefix("B-").removeprefix("I-") for base in members} == {group["entity_group"]}
            assert group["score"] == pytest.approx(np.mean([base["score"] for base in members]), abs=1e-4)
            assert group["word"] == pipe.tokenizer.decode(ids_of(sequence[group["start"] : group["end"]])[0])


STRANGER = """
import json, sys
sys.modules["hyenadna_hf"] = None
from transformers import pipeline
root, sequences, options = sys.argv[1], *map(json.loads, sys.argv[2:])
found = {}
for task, calls in options.items():
    pipe = pipeline(task, model=f"{root}/{task}", device="cpu", trust_remote_code=True)
    assert type(pipe.model).__module__.startswith("transformers_modules"), type(pipe.model)
    found[task] = pipe(sequences[task], batch_size=3, **calls)
print(json.dumps(found, default=float))
"""


def test_where_the_package_is_not_installed(make, folders):
    options = {task: GENERATION if task == "text-generation" else {} for task in TASKS}
    sequences = {task: ["AC[MASK]GT", "G[MASK]"] if task == "fill-mask" else SEQUENCES for task in TASKS}
    found = result_of(STRANGER, folders, json.dumps(sequences), json.dumps(options))
    for task, calls in options.items():
        here = json.dumps(make(task)(sequences[task], batch_size=3, **calls), default=float)
        assert_same(found[task], json.loads(here))


def assert_same(one, other):
    """Equal, numbers to 1e-5."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5)
    else:
        assert one == other
