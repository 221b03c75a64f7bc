"""Any cut of a sequence into calls gives the same as one call: values in float64, so that nothing hides in rounding."""

import gzip
import math
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_PLACE, WHOLE
from reference import causal_conv_direct, randomise
from transformers import AutoModel, DynamicCache

from hyenadna_hf import HyenaDNACache, HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNAModel
from hyenadna_hf.model import cache_hyenadna
from hyenadna_hf.model.cache_hyenadna import BLOCK, add_convolution
from hyenadna_hf.model.tuning_hyenadna import TUNING
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS


def model_of(order=2, short=3, max_seq_len=700, model_class=HyenaDNAModel, **kwargs):
    torch.manual_seed(0)
    config = HyenaDNAConfig(
        d_model=6, n_layer=2, max_seq_len=max_seq_len, filter_order=8, hyena_order=order, short_filter_order=short,
        embed_dropout=0.0, **kwargs,
    )  # fmt: skip
    return randomise(model_class(config)).double().eval()


def in_pieces(model, ids, mask=None, cuts=(), **kwargs):
    """Hidden states of calls that each go on from the one before, and the cache."""
    cache, hidden = None, []
    for begin, end in pairwise([0, *cuts, ids.shape[1]]):
        out = model(
            ids[:, begin:end], None if mask is None else mask[:, begin:end], past_key_values=cache, use_cache=True,
            **kwargs,
        )  # fmt: skip
        cache = out.past_key_values
        hidden.append(out[0])
    return torch.cat(hidden, dim=1), cache


# With "low", the first call runs in pieces, however short it is.
memory = st.sampled_from(("auto", "low"))

# Runs of single steps, pieces about the size of a block, and long ones.
pieces = st.lists(
    st.one_of(
        st.integers(1, BLOCK + 8).map(lambda n: [1] * n),
        st.integers(1, 2 * BLOCK + 2).map(lambda n: [n]),
        st.integers(100, 250).map(lambda n: [n]),
    ),
    min_size=1,
    max_size=8,
).map(lambda runs: [n for run in runs for n in run])


@torch.no_grad()
@settings(max_examples=40)
@given(pieces, st.integers(2, 4), st.integers(1, 5), st.booleans(), memory)
def test_any_cut_gives_the_same(widths, order, short, use_bias, memory):
    ends = [end for end in accumulate(widths) if end <= 700]
    model = model_of(order, short, use_bias=use_bias, memory=memory)
    ids = torch.randint(0, 12, (2, ends[-1] if ends else 700))
    hidden, cache = in_pieces(model, ids, cuts=ends[:-1])
    assert cache.get_seq_length() == ids.shape[1]
    torch.testing.assert_close(hidden, model(ids).last_hidden_state, rtol=0, atol=1e-7)


@torch.no_grad()
@settings(max_examples=40)
@given(st.data(), st.integers(2, 3), st.integers(1, 4), memory)
def test_any_cut_of_any_mask_gives_the_same(data, order, short, memory):
    """Padding on either side, gaps, rows and pieces without a real position."""
    length = data.draw(st.integers(1, 4 * BLOCK + 8))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    mask = (torch.rand(3, length, generator=generator) < torch.tensor([[0.2], [0.6], [0.95]])).long()
    pads = data.draw(st.integers(0, length))
    mask[data.draw(st.integers(0, 2)), :pads] = 0
    mask[:, data.draw(st.integers(0, length)) :] = 1
    cuts = data.draw(st.sets(st.integers(1, length), max_size=6)) - {length}
    if data.draw(st.booleans()):
        cuts |= set(range(max(cuts, default=1), length))  # single steps to the end
    model = model_of(order, short, memory=memory)
    ids = torch.randint(0, 12, (3, length), generator=generator)
    hidden, cache = in_pieces(model, ids, mask, sorted(cuts))
    torch.testing.assert_close(hidden, model(ids, mask).last_hidden_state, rtol=0, atol=1e-7)
    assert cache.lengths.tolist() == mask.sum(1).tolist()


@torch.no_grad()
@settings(max_examples=40)
@given(st.data(), st.integers(2, 3), st.integers(1, 5), st.booleans(), st.sampled_from((0, 150)))
def test_calls_in_place_continue(data, order, short, masked, expected_length):
    """In pieces of rows, channels and positions."""
    widths = data.draw(st.lists(st.integers(BLOCK + 1, 3 * BLOCK), min_size=2, max_size=4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    length = sum(widths)
    mask = torch.rand(3, length, generator=generator) < data.draw(st.sampled_from((0.02, 0.6))) if masked else None
    model = model_of(order, short)
    ids = torch.randint(0, 12, (3, length), generator=generator)
    cache, hidden = HyenaDNACache(model.config, expected_length), []
    for part in range(len(widths)):
        columns = slice(sum(widths[:part]), sum(widths[: part + 1]))
        part_mask = None if mask is None else mask[:, columns]
        hidden.append(model(ids[:, columns], part_mask, past_key_values=cache, plan=IN_PLACE)[0])
    whole = model(ids, mask, plan=WHOLE)[0]
    torch.testing.assert_close(torch.cat(hidden, dim=1), whole, rtol=0, atol=1e-7)


@torch.no_grad()
def test_up_to_the_last_position_and_no_further():
    model = model_of(max_seq_len=300)
    ids = torch.randint(7, 11, (1, 300))
    hidden, cache = in_pieces(model, ids, cuts=[200, *range(201, 300)])
    torch.testing.assert_close(hidden, model(ids).last_hidden_state, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match=r"301 positions, 300 of them in past_key_values.*max_seq_len is 300"):
        model(ids[:, :1], past_key_values=cache)
    assert cache.get_seq_length() == 300


@torch.no_grad()
def test_real_weights_on_real_sequence_in_float32(shared):
    """Step by step, within 1e-4: two float32 computations of trained weights differ by about 1e-5."""
    model = AutoModel.from_pretrained(BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"]).eval()
    with gzip.open(shared / "data/genomes/human_chr20_30M-33M.fa.gz", "rt") as lines:
        next(lines)
        sequence = "".join(next(lines).strip() for _ in range(100)).upper()
    ids = torch.tensor([["ACGTN".index(base) + 7 for base in sequence[i : i + 1026]] for i in (0, 2000)])
    whole = model(ids).last_hidden_state
    for cuts in ([900, *range(901, 1026)], range(1, 1026), [100, 333, 1000, 1001, 1002]):
        hidden, _ = in_pieces(model, ids, cuts=cuts)
        torch.testing.assert_close(hidden, whole, rtol=0, atol=1e-4)


@torch.no_grad()
def test_rows_may_be_selected_and_repeated():
    model = model_of()
    ids = torch.randint(7, 11, (3, 200))
    mask = torch.ones_like(ids)
    mask[1, :77] = 0
    whole = model(ids, mask).last_hidden_state
    for rows in ([2, 0, 1], [1, 1], [0, 1, 2], [True, False, True]):
        _, cache = in_pieces(model, ids[:, :100], mask[:, :100], [64])
        cache.batch_select_indices(torch.tensor(rows))
        assert cache.batch_size == len(whole[rows])
        hidden = model(ids[rows, 100:], past_key_values=cache).last_hidden_state
        torch.testing.assert_close(hidden, whole[rows, 100:], rtol=0, atol=1e-7)
    _, cache = in_pieces(model, ids[:, :100], mask[:, :100])
    cache.batch_repeat_interleave(2)
    hidden = model(ids[[0, 0, 1, 1, 2, 2], 100:], past_key_values=cache).last_hidden_state
    torch.testing.assert_close(hidden, whole[[0, 0, 1, 1, 2, 2], 100:], rtol=0, atol=1e-7)


@torch.no_grad()
def test_reset():
    model = model_of()
    _, cache = in_pieces(model, torch.randint(7, 11, (3, 100)))
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.batch_size == -1
    ids = torch.randint(7, 11, (1, 100))
    hidden = model(ids, past_key_values=cache).last_hidden_state
    torch.testing.assert_close(hidden, model(ids).last_hidden_state, rtol=0, atol=1e-7)


def test_a_cache_made_in_inference_mode_serves_outside_of_it():
    model = model_of()
    ids = torch.randint(7, 11, (1, 100))
    with torch.inference_mode():
        _, cache = in_pieces(model, ids[:, :50])
    with torch.no_grad():
        hidden = [model(piece, past_key_values=cache).last_hidden_state for piece in (ids[:, 50:99], ids[:, 99:])]
        expected = model(ids).last_hidden_state[:, 50:]
    torch.testing.assert_close(torch.cat(hidden, dim=1), expected, rtol=0, atol=1e-7)


@torch.no_grad()
def test_compat_padding_reads_masked_positions():
    model = model_of(compat_padding=True)
    ids = torch.randint(0, 12, (2, 100))
    mask = (ids != 4).long()
    assert not mask.all()
    hidden, _ = in_pieces(model, ids, mask, [60, *range(61, 100)])
    torch.testing.assert_close(hidden, model(ids).last_hidden_state, rtol=0, atol=1e-7)


@torch.no_grad()
def test_trained_positions():
    model = model_of(trained_positions=True, max_seq_len=150)
    ids = torch.randint(7, 11, (1, 150))
    hidden, _ = in_pieces(model, ids, cuts=[70, *range(71, 150)])
    torch.testing.assert_close(hidden, model(ids).last_hidden_state, rtol=0, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("order", [2, 3, 4])
def test_state_and_work_are_bounded(order, monkeypatch):
    """At most order * d_model numbers a position and layer; transforms of O(N log^2 N) points for N positions."""
    config = HyenaDNAConfig(d_model=4, n_layer=1, max_seq_len=5000, filter_order=8, hyena_order=order)
    model = HyenaDNAModel(config).eval()
    points = []

    def counting(out, v, k, start, tuning):
        points.append(v.shape[-1] + out.shape[-1])
        add_convolution(out, v, k, start, tuning)

    monkeypatch.setattr(cache_hyenadna, "add_convolution", counting)
    prompt, made = 2000, 1024
    out = model(torch.randint(7, 11, (1, prompt)), use_cache=True)
    for token in torch.randint(7, 11, (made, 1, 1)):
        out = model(token, past_key_values=out.past_key_values)
    layer = out.past_key_values.layers[0]
    numbers = sum(t.numel() for t in vars(layer).values() if isinstance(t, torch.Tensor))
    assert numbers <= order * config.d_model * (prompt + made)
    total = prompt + made
    assert sum(points) / (order - 1) <= total * math.log2(total) ** 2


@pytest.mark.parametrize(
    "start, length, stretch", [(0, 5, 5), (0, 5, 9), (5, 5, 3), (32, 32, 32), (7, 7, 64), (3, 9, 2), (0, 700, 800)]
)
@pytest.mark.parametrize("least_prefix", [1, 64])
def test_stretches_of_a_convolution(start, length, stretch, least_prefix):
    tuning = TUNING._replace(least_prefix=least_prefix, cache_transforms=64)  # several turns
    v = torch.randn(2, 5, length, dtype=torch.float64)
    k = torch.randn(5, start + stretch + 2, dtype=torch.float64)
    out = torch.randn(2, 5, stretch, dtype=torch.float64)
    padded = torch.nn.functional.pad(v, (0, start + stretch))[..., : start + stretch]
    expected = out + causal_conv_direct(padded, k[:, : start + stretch])[..., start:]
    add_convolution(out, v, k, start, tuning)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


class TestErrors:
    def test_another_number_of_rows(self):
        model = model_of()
        _, cache = in_pieces(model, torch.randint(7, 11, (2, 9)))
        with pytest.raises(ValueError, match="3 rows, but past_key_values was created by a call with 2"):
            model(torch.randint(7, 11, (3, 1)), past_key_values=cache)

    def test_a_cache_of_another_kind(self):
        with pytest.raises(ValueError, match="DynamicCache, but this model's state is a HyenaDNACache"):
            model_of()(torch.randint(7, 11, (1, 9)), past_key_values=DynamicCache())

    def test_training(self):
        with pytest.raises(ValueError, match=r"no gradient.*model.eval\(\)"):
            model_of().train()(torch.randint(7, 11, (1, 9)), use_cache=True)

    def test_gradient_checkpointing_of_a_frozen_model(self):
        model = model_of().train().requires_grad_(False)
        ids = torch.randint(7, 11, (1, 9))
        assert model(ids, use_cache=True).past_key_values.get_seq_length() == 9
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        with pytest.raises(ValueError, match="gradient checkpointing would read it twice"):
            model(ids, use_cache=True)

    def test_a_mask_of_another_length(self):
        model = model_of()
        _, cache = in_pieces(model, torch.randint(7, 11, (1, 9)))
        with pytest.raises(ValueError, match=r"attention_mask has shape \(1, 7\)"):
            model(torch.randint(7, 11, (1, 3)), torch.ones(1, 7), past_key_values=cache)

    def test_crop(self):
        with pytest.raises(NotImplementedError, match="cannot be shortened"):
            HyenaDNACache(HyenaDNAConfig()).crop(1)

    def test_labels_with_some_logits(self):
        model = model_of(model_class=HyenaDNAForCausalLM)
        ids = torch.randint(7, 11, (1, 9))
        with pytest.raises(ValueError, match="logits_to_keep=1"):
            model(ids, labels=ids, logits_to_keep=1)


@torch.no_grad()
def test_no_cache_unless_asked_for():
    """It would take as much memory as everything else."""
    model = model_of(model_class=HyenaDNAForCausalLM)
    ids = torch.randint(7, 11, (1, 9))
    assert model(ids).past_key_values is None
    assert model(ids, use_cache=True).past_key_values.get_seq_length() == 9
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, model(ids).logits[:, -2:])
