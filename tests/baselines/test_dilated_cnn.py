"""The dilated network with one prediction per base: what it reads, its sizes, losses, and that it loads anywhere."""

import json

import pytest
import torch
from forked import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import AutoModelForTokenClassification, set_seed

from hyenadna_hf.baselines.dilated_cnn import (
    DilatedCNNConfig,
    DilatedCNNForTokenClassification,
    spliceai_config,
)
from hyenadna_hf.baselines.named import baseline_config, baseline_tokenizer


def build(stages=((3, 1), (5, 2)), **fields):
    set_seed(0)
    model = DilatedCNNForTokenClassification(DilatedCNNConfig(8, stages, **fields))
    for name, buffer in model.named_buffers():  # statistics as after training
        if name.endswith("running_mean"):
            torch.nn.init.uniform_(buffer, -0.3, 0.3)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 1.0)
    return model.double().eval()


def test_published_networks():
    """Receptive fields and numbers of parameters, from the description of the networks."""
    for length, count in ((1, 1), (81, 1), (82, 2), (401, 2), (402, 3), (2_001, 3), (2_002, 4), (10**6, 4), (None, 4)):
        config = baseline_config("cnn", length, per_base=True, num_labels=3)
        field, parameters = 1, 4 * 32 + 32 + 32 * 3 + 3 + (count + 1) * (32 * 32 + 32)
        for kernel_size, dilation in ((11, 1), (11, 4), (21, 10), (41, 25))[:count]:
            field += 4 * 2 * (kernel_size - 1) * dilation
            parameters += 4 * 2 * (32 * 32 * kernel_size + 32 + 2 * 32)
        assert config.receptive_field() == field == (81, 401, 2_001, 10_001)[count - 1]
        assert AutoModelForTokenClassification.from_config(config).num_parameters() == parameters


@pytest.mark.parametrize("stages", [((3, 1),), ((3, 1), (5, 2))])
def test_a_prediction_depends_on_the_bases_of_its_receptive_field(stages):
    model = build(stages)
    reach = model.config.receptive_field() // 2
    ids = torch.randint(7, 11, (1, 2 * reach + 21))
    middle = reach + 10
    changed = ids.clone()
    changed[0, middle] = 7 + (ids[0, middle] - 6) % 4
    with torch.no_grad():
        is_other = (model(ids).logits != model(changed).logits).any(-1)[0]
    assert is_other.nonzero()[:, 0].tolist() == list(range(middle - reach, middle + reach + 1))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 99)), min_size=1, max_size=3),
    st.sampled_from(["left", "right"]),
)
def test_padding_changes_nothing(rows, side):
    """Each row as alone, on either side; N and special tokens are zeros like what is beyond the ends."""
    model = build(num_labels=3)
    rows = [torch.randint(7, 12, (n,), generator=torch.Generator().manual_seed(seed)) for n, seed in rows]
    longest = max(map(len, rows))
    ids, mask = torch.randint(0, 16, (len(rows), longest)), torch.zeros(len(rows), longest)
    for number, row in enumerate(rows):
        piece = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        ids[number, piece], mask[number, piece] = row, 1
    with torch.no_grad():
        together = model(ids, mask).logits[mask == 1]
        alone = torch.cat([model(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "mse", "poisson"])
def test_losses_are_means_over_labelled_positions(problem):
    is_regression = problem in ("mse", "poisson")
    fields = {"problem_type": "regression", "regression_loss": problem} if is_regression else {"problem_type": problem}
    model, ids = build(num_labels=3, **fields), torch.randint(7, 11, (2, 9))
    is_used = torch.rand(2, 9) < 0.6
    if problem == "single_label_classification":
        labels = torch.randint(3, (2, 9)).masked_fill(~is_used, -100)
    else:
        labels = torch.randint(2, (2, 9, 3)).double().masked_fill(~is_used[..., None], -100)
    output = model(ids, labels=labels)
    logits, labels = output.logits[is_used], labels[is_used]
    assert (output.logits > 0).all() or problem != "poisson"
    expected = {
        "single_label_classification": lambda: -logits.log_softmax(-1).gather(1, labels[:, None]).mean(),
        "multi_label_classification": lambda: -F.logsigmoid(logits * (2 * labels - 1)).mean(),
        "mse": lambda: ((logits - labels) ** 2).mean(),
        "poisson": lambda: (logits - labels * logits.log()).mean(),
    }[problem]()
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_bad_fields():
    with pytest.raises(ValueError, match="kernel sizes must be odd"):
        DilatedCNNConfig(stages=[(4, 1)])
    with pytest.raises(ValueError, match="regression_loss='mae': choose mse or poisson"):
        DilatedCNNConfig(regression_loss="mae")


def test_what_is_saved_loads_where_the_package_is_not_installed(tmp_path):
    script = """
import json, sys
sys.modules["hyenadna_hf"] = None  # importing it now fails
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer
sequence, folder = sys.argv[1:]
model = AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    print(json.dumps(model(**tokenizer(sequence, return_tensors="pt")).logits.tolist()))
"""
    model, tokenizer, sequence = build().float(), baseline_tokenizer("cnn"), "ACGTTGCATTAGCACCA"
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(**tokenizer(sequence, return_tensors="pt")).logits
    found = run_script(script, sequence, tmp_path)
    assert found.returncode == 0, found.stderr
    torch.testing.assert_close(torch.tensor(json.loads(found.stdout.splitlines()[-1])), expected, rtol=0, atol=1e-5)


def test_the_default_is_the_largest_network():
    assert spliceai_config().to_dict() == DilatedCNNConfig().to_dict()
