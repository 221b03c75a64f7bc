import copy
import gzip
import itertools

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.data.sequence import reverse_complement, shared_prefix_length
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.likelihood import BaseLikelihood, sequence_log_likelihood
from hyenadna_hf.training.prompt_position import PlacedPromptConfig

LETTERS = "ACGTNacgtnRU"
TOKENIZER = HyenaDNATokenizer(special_tokens_mode="sep")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=40, filter_order=16, embed_dropout=0.3)
    return reference.randomise(HyenaDNAForCausalLM(config)).train()


def expected_values(model, sequence, bos=False):
    """What the float64 reference makes of each base."""
    codes = [dict(zip("ACGTUN", (7, 8, 9, 10, 10, 11))).get(letter, 11) for letter in sequence.upper()]
    values = np.full(len(codes), np.nan)
    parameters = reference.parameters(model)  # in float64
    ids = torch.tensor([2] * bos + codes)
    if len(ids) > 1:
        hidden = reference.hidden_states(parameters, model.config, ids)[-1]
        head = model.lm_head.weight[7:11].double()
        log_p = (hidden[:-1] @ head.T).log_softmax(-1).detach().numpy()
        for row, position in zip(log_p, range(1 - bos, len(codes))):
            values[position] = row[codes[position] - 7] if codes[position] != 11 else np.nan
    return values


@settings(max_examples=20)
@given(st.lists(st.text(LETTERS, max_size=20), max_size=6), st.booleans(), st.sampled_from([1, 7, 30, 500]))
def test_each_base_given_those_before_it(model, sequences, bos, max_tokens):
    scored = sequence_log_likelihood(model, TOKENIZER, iter(sequences), bos=bos, per_base=True, max_tokens=max_tokens)
    for sequence, found in itertools.zip_longest(sequences, scored):
        expected = expected_values(model, sequence, bos)
        np.testing.assert_allclose(found.per_base, expected, atol=1e-3)
        assert found.log_likelihood == pytest.approx(np.nansum(expected), abs=1e-3)
        assert found.scored == np.isfinite(expected).sum()
        assert found.skipped == sum(letter.upper() in "NR" for letter in sequence)
    assert all(module.training for module in model.modules())


@settings(max_examples=20)
@given(st.text(LETTERS, max_size=40), st.booleans())
def test_both_strands(model, sequence, bos):
    bos = bos and len(sequence) < 40
    (both,) = sequence_log_likelihood(model, TOKENIZER, [sequence], strands="both", bos=bos, per_base=True)
    (forward, other) = sequence_log_likelihood(
        model, TOKENIZER, [sequence, reverse_complement(sequence)], bos=bos, per_base=True
    )
    assert both.log_likelihood == pytest.approx((forward.log_likelihood + other.log_likelihood) / 2, abs=1e-3)
    assert both.scored == (forward.scored + other.scored) / 2
    for value, *strands in zip(both.per_base, forward.per_base, other.per_base[::-1]):
        there = [strand for strand in strands if np.isfinite(strand)]
        assert value == pytest.approx(np.mean(there), abs=1e-4) if there else np.isnan(value)


GROUP = st.tuples(
    st.integers(60, 150).flatmap(lambda n: st.text("ACGTN", min_size=n, max_size=n)),
    st.lists(st.text("ACGTN", max_size=60), min_size=1, max_size=4),
)


@settings(max_examples=25)
@given(st.lists(GROUP, min_size=1, max_size=4), st.booleans(), st.sampled_from([300, 2000]), st.booleans())
def test_a_shared_beginning_is_read_once(groups, bos, max_tokens, prompted):
    """From the first difference on, the values are those of each sequence alone."""
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=12, n_layer=2, max_seq_len=240, filter_order=16)
    model = reference.randomise(HyenaDNAForCausalLM(config)).double()
    if prompted:  # stands before each call of the model, so that a second call would be wrong
        prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        model = get_peft_model(model, prompt).double()
    groups = [[begin + end for end in ends] for begin, ends in groups]
    likelihood = BaseLikelihood(model, TOKENIZER, bos, max_tokens)
    for group, found in itertools.zip_longest(groups, likelihood.stream_groups(groups)):
        shared = min(shared_prefix_length(group), min(map(len, group)) - 1)
        for (_, alone), values in itertools.zip_longest(likelihood.stream(group, str), found):
            np.testing.assert_allclose(values[shared:], alone[shared:], atol=1e-6)
            np.testing.assert_allclose(values[:shared], np.where(np.isnan(values), np.nan, alone)[:shared], atol=1e-6)


@settings(max_examples=20)
@given(st.text("ACGTN", min_size=30, max_size=90), st.integers(3, 40), st.booleans(), st.data())
def test_tiles_are_stitched_at_the_middle_of_the_overlap(model, sequence, window, bos, data):
    window -= bos
    stride = data.draw(st.integers(1 + window // 8, window if bos else window - 2))
    (whole,) = sequence_log_likelihood(
        model, TOKENIZER, [sequence], bos=bos, per_base=True, window=window, stride=stride
    )
    assert len(whole.per_base) == len(sequence)
    scored = np.isfinite(whole.per_base)
    assert [bool(s) for s in scored] == [base != "N" and (i > 0 or bos) for i, base in enumerate(sequence)]
    assert whole.log_likelihood == pytest.approx(np.nansum(whole.per_base, dtype=np.float64), abs=1e-6)
    assert whole.scored == scored.sum()
    starts = [0]
    while starts[-1] + window < len(sequence):
        starts.append(min(starts[-1] + stride, len(sequence) - window))
    tiles = [sequence[start : start + window] for start in starts]
    parts = list(sequence_log_likelihood(model, TOKENIZER, tiles, bos=bos, per_base=True))
    for position, value in enumerate(whole.per_base):
        # The tile is the last one whose overlap with the one before has its middle at or before the position.
        tile = max(i for i, s in enumerate(starts) if i == 0 or (starts[i - 1] + window + s) // 2 <= position)
        np.testing.assert_allclose(value, parts[tile].per_base[position - starts[tile]], atol=1e-4)


def test_reads_lazily_and_hands_over_in_order(model):
    read = []
    sequences = (read.append(n) or "ACGT" * (1 + n % 7) for n in range(10_000))
    scored = sequence_log_likelihood(model, TOKENIZER, sequences, max_tokens=64)
    assert not read
    first = list(itertools.islice(scored, 20))
    assert len(read) < 100
    assert [found.scored for found in first] == [4 * (1 + n % 7) - 1 for n in range(20)]
    assert not torch.is_inference_mode_enabled() and all(module.training for module in model.modules())


def test_half_precision(model):
    sequences = ["ACGTTGCANNACGTAGGCTA", "TTGACA"]
    for exact, rounded in zip(
        sequence_log_likelihood(model, TOKENIZER, sequences, per_base=True),
        sequence_log_likelihood(copy_of(model).bfloat16(), TOKENIZER, sequences, per_base=True),
    ):
        assert rounded.per_base.dtype == np.float32
        assert np.nanmean(np.abs(rounded.per_base - exact.per_base)) < 0.2


def copy_of(model):
    copy = HyenaDNAForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def test_with_adapters(model):
    sequence = "ACGTTGCANACGTAGG"
    base = copy_of(model)
    (plain,) = sequence_log_likelihood(base, TOKENIZER, [sequence], per_base=True)
    lora = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["in_proj", "fc1"]))
    (unchanged,) = sequence_log_likelihood(lora, TOKENIZER, [sequence], per_base=True)
    np.testing.assert_allclose(unchanged.per_base, plain.per_base, atol=1e-5)
    prompted = get_peft_model(copy_of(model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    (changed,) = sequence_log_likelihood(prompted, TOKENIZER, [sequence], per_base=True)
    ids = TOKENIZER(sequence, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = prompted.eval()(input_ids=ids).logits[0, 3:-1, 7:11]
    picked = [logits.log_softmax(-1)[i, "ACGT".index(b)] if b != "N" else np.nan for i, b in enumerate(sequence[1:])]
    np.testing.assert_allclose(changed.per_base[1:], picked, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"window": 41}, "window=41: give 3 to 40 bases"),
        ({"window": 2}, "window=2: give 3 to 40"),
        ({"window": 40, "bos": True}, "window=40: give 1 to 39"),
        ({"window": 20, "stride": 19}, "stride=19: give 1 to 18"),
        ({"stride": 0}, "stride=0"),
        ({"strands": "reverse"}, "strands='reverse': choose one of forward, both"),
        ({"max_tokens": 0}, "max_tokens=0"),
    ],
)
def test_arguments_are_checked_at_once(model, arguments, message):
    with pytest.raises(InputError, match=message):
        sequence_log_likelihood(model, TOKENIZER, ["ACGT"], **arguments)


def test_what_is_no_language_model_or_no_dna(model):
    classifier = HyenaDNAForSequenceClassification(model.config)
    with pytest.raises(InputError, match="HyenaDNAForSequenceClassification is not a HyenaDNA language model"):
        sequence_log_likelihood(classifier, TOKENIZER, ["ACGT"])
    with pytest.raises(InputError, match="'E' at base 2"):
        list(sequence_log_likelihood(model, TOKENIZER, ["AEGT"]))
    with pytest.raises(InputError, match="a single string"):
        sequence_log_likelihood(model, TOKENIZER, "ACGT")


def test_a_prompt_elsewhere_than_before_the_input(model):
    prompt = PlacedPromptConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, prompt_position="after")
    with pytest.raises(InputError, match="its soft prompt has the position 'after'"):
        BaseLikelihood(get_peft_model(copy.deepcopy(model), prompt), TOKENIZER)


def test_the_published_normalisation_on_real_sequence(shared, model):
    """The sum over all sequences of one more base is 1."""
    with gzip.open(shared / "data/genomes/human_chr20_30M-33M.fa.gz", "rt") as file:
        context = "".join(itertools.islice(file, 1, 2)).strip()[:30]
    scored = sequence_log_likelihood(model, TOKENIZER, [context + base for base in "ACGT"])
    before = next(sequence_log_likelihood(model, TOKENIZER, [context])).log_likelihood
    assert sum(np.exp(found.log_likelihood - before) for found in scored) == pytest.approx(1, abs=1e-4)
