"""Sequences joined into one row, as `DataCollatorWithFlattening` joins them, give exactly what they give alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_PLACE, LOW, PIECES, ROWS, TRANSPARENT, WHOLE
from reference import randomise
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithFlattening,
    Trainer,
    TrainingArguments,
)

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

SIZES = {"d_model": 8, "n_layer": 2, "max_seq_len": 40, "filter_order": 8, "embed_dropout": 0.0, "num_labels": 3}
EXACT = {"rtol": 0, "atol": 1e-9}
HEADS = [HyenaDNAForCausalLM, HyenaDNAForMaskedLM, HyenaDNAForTokenClassification]
LENGTHS = [9, 1, 31, 2, 16]  # together more than max_seq_len
JOINS = ["position_ids", "cu_seq_lens_q", "seq_idx", "all"]


def build(model_class, **overrides):
    torch.manual_seed(1)
    config = HyenaDNAConfig(**SIZES, bidirectional=model_class is HyenaDNAForMaskedLM, **overrides)
    return randomise(model_class(config)).double().eval()


def sequences_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(7, 12, (length,), generator=generator) for length in lengths]


def joined(sequences, how="position_ids"):
    """One row, and what says where its sequences begin."""
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    batch = collator([{"input_ids": sequence.tolist()} for sequence in sequences])
    del batch["labels"]
    if how != "all":
        batch = {name: batch[name] for name in ("input_ids", how)}
    return batch


def labels_of(model_class, ids):
    return ids % 3 if model_class is HyenaDNAForTokenClassification else ids


def score(model, ids, labels, **kwargs):
    """The sum of the losses of all positions, in float64; transformers' own may be in float32."""
    logits = model(ids, **kwargs)[0]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def gradients(model, loss):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("plan", [TRANSPARENT, WHOLE, ROWS, PIECES, LOW, IN_PLACE], ids=str)
@pytest.mark.parametrize("how", JOINS)
@pytest.mark.parametrize("overrides", [{}, {"hyena_order": 3}, {"bidirectional": True}], ids=str)
def test_hidden_states(how, plan, overrides):
    torch.manual_seed(1)
    model = randomise(HyenaDNAModel(HyenaDNAConfig(**SIZES, **overrides))).double().eval()
    sequences = sequences_of(LENGTHS)
    with torch.no_grad():
        together = model(**joined(sequences, how), output_hidden_states=True, plan=plan).hidden_states
        alone = [model(sequence[None], output_hidden_states=True).hidden_states for sequence in sequences]
    for mine, *theirs in zip(together, *alone, strict=True):
        torch.testing.assert_close(mine, torch.cat(theirs, 1), **EXACT)


@pytest.mark.parametrize("plan", [TRANSPARENT, WHOLE, ROWS, PIECES, LOW], ids=str)
@pytest.mark.parametrize("model_class", HEADS)
def test_logits_and_gradients(model_class, plan):
    model = build(model_class)
    sequences = sequences_of(LENGTHS)
    inputs = joined(sequences, "all")
    together = score(model, inputs.pop("input_ids"), labels_of(model_class, torch.cat(sequences)), plan=plan, **inputs)
    alone = sum(score(model, sequence[None], labels_of(model_class, sequence)) for sequence in sequences)
    torch.testing.assert_close(together, alone, **EXACT)
    for mine, expected in zip(gradients(model, together), gradients(model, alone), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("separated", [True, False], ids=["labels of the collator", "plain labels"])
@pytest.mark.parametrize("model_class", HEADS)
def test_loss(model_class, separated):
    """No position is scored on the first label of the next sequence. (transformers' losses are float32.)"""
    model = build(model_class)
    causal = model_class is HyenaDNAForCausalLM
    sequences = sequences_of(LENGTHS)
    labels = [labels_of(model_class, sequence.clone()) for sequence in sequences]
    if separated:
        for row in labels:
            row[0] = -100
    batch = joined(sequences)
    together = model(**batch, labels=torch.cat(labels)[None]).loss
    total = count = 0
    for sequence, row in zip(sequences, labels):
        scored = int((row[1:] if causal else row).ne(-100).sum())
        if scored:
            total += model(sequence[None], labels=row[None]).loss * scored
            count += scored
    torch.testing.assert_close(together.double(), (total / count).double(), rtol=0, atol=1e-6)
    given_count = model(**batch, labels=torch.cat(labels)[None], num_items_in_batch=2 * count).loss
    torch.testing.assert_close(given_count, together / 2, rtol=0, atol=1e-6)


@st.composite
def joined_batches(draw):
    """Rows of several sequences, and a mask with zeros anywhere, whole sequences included."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 20))

    def table():
        return torch.tensor([draw(st.lists(st.booleans(), min_size=length, max_size=length)) for _ in range(rows)])

    starts, mask = table(), table()
    starts[:, 0] = True
    if draw(st.booleans()):
        mask[:] = True
    return torch.randint(0, 16, (rows, length), generator=torch.Generator().manual_seed(3)), starts, mask


def arguments_of(how, starts, mask):
    """`seq_idx`, or `position_ids` that count real positions alone; what stands at masked ones has no meaning."""
    numbers = starts.long().cumsum(1)
    if how == "seq_idx":
        return {"seq_idx": numbers.int()}
    positions = torch.full_like(numbers, 77)
    for row in range(len(numbers)):
        for number in numbers[row].unique():
            real = (numbers[row] == number) & mask[row]
            positions[row, real] = torch.arange(int(real.sum()))
    return {"position_ids": positions}


@settings(max_examples=60)
@given(
    joined_batches(),
    st.sampled_from(["position_ids", "seq_idx"]),
    st.sampled_from([TRANSPARENT, WHOLE, ROWS, PIECES, IN_PLACE]),
    st.booleans(),
)
def test_whatever_the_lengths_joins_and_masks(batch, how, plan, bidirectional):
    ids, starts, mask = batch
    torch.manual_seed(1)
    model = randomise(HyenaDNAModel(HyenaDNAConfig(**SIZES, bidirectional=bidirectional))).double().eval()
    numbers = starts.long().cumsum(1)
    with torch.no_grad():
        hidden = model(ids, mask.long(), plan=plan, **arguments_of(how, starts, mask)).last_hidden_state
        assert not hidden[~mask].any()
        for i, row in enumerate(ids):
            for number in numbers[i].unique():
                real = (numbers[i] == number) & mask[i]
                if real.any():
                    alone = model(row[real][None]).last_hidden_state[0]
                    torch.testing.assert_close(hidden[i, real], alone, **EXACT)


@settings(max_examples=15)
@given(joined_batches(), st.sampled_from(HEADS), st.sampled_from([TRANSPARENT, WHOLE, ROWS, PIECES]))
def test_gradients_whatever_the_lengths_joins_and_masks(batch, model_class, plan):
    ids, starts, mask = batch
    if not mask.any():
        return
    model = build(model_class)
    inputs = {"plan": plan, "attention_mask": mask.long(), **arguments_of("position_ids", starts, mask)}
    labels = labels_of(model_class, ids)
    together = score(model, ids, labels.masked_fill(~mask, -100), **inputs)
    numbers = starts.long().cumsum(1) + 100 * torch.arange(len(ids))[:, None]
    alone = sum(
        score(model, ids[real][None], labels[real]) for n in numbers.unique() if (real := (numbers == n) & mask).any()
    )
    torch.testing.assert_close(together, alone, **EXACT)
    for mine, expected in zip(gradients(model, together), gradients(model, alone), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


def test_what_stands_at_masked_positions_joins_nothing():
    """Numbers of padding, as some collators write them, make no sequence: classifiers and caches take them."""
    ids = torch.tensor([[4, 4, 7, 8, 4, 9], [7, 8, 9, 10, 7, 8]])
    mask = (ids != 4).long()
    idx = torch.where(ids != 4, 5, -1)
    model = build(HyenaDNAForSequenceClassification)
    torch.testing.assert_close(model(ids, mask, seq_idx=idx).logits, model(ids, mask).logits, **EXACT)
    lm = build(HyenaDNAForCausalLM)
    torch.testing.assert_close(lm(ids, mask, seq_idx=idx).logits, lm(ids, mask).logits, **EXACT)


class TestOrdinaryPositions:
    """They say that each row is one sequence: nothing changes, in any head."""

    @pytest.mark.parametrize("model_class", [HyenaDNAModel, HyenaDNAForSequenceClassification, *HEADS])
    @pytest.mark.parametrize("rows", [1, 3])
    def test_arange(self, model_class, rows):
        model = build(model_class)
        ids = torch.randint(7, 12, (3, 20))
        positions = torch.arange(20).expand(rows, 20)
        assert torch.equal(model(ids, position_ids=positions)[0], model(ids)[0])
        assert torch.equal(model(ids, position_ids=positions + 5)[0], model(ids)[0])

    @pytest.mark.parametrize("fill", [0, 1])
    def test_under_left_padding(self, fill):
        model = build(HyenaDNAForSequenceClassification)
        ids = torch.randint(7, 12, (3, 20))
        mask = (torch.arange(20) >= torch.tensor([[0], [7], [19]])).long()
        positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, fill)
        assert torch.equal(model(ids, mask, position_ids=positions)[0], model(ids, mask)[0])

    def test_with_a_cache(self):
        model = build(HyenaDNAForCausalLM)
        ids = torch.randint(7, 12, (2, 30))
        with torch.no_grad():
            cache = model(ids[:, :12], use_cache=True, position_ids=torch.arange(12)[None]).past_key_values
            for begin, end in [(12, 13), (13, 20), (20, 30)]:
                positions = torch.arange(begin, end).expand(2, -1)
                logits = model(ids[:, begin:end], past_key_values=cache, position_ids=positions).logits
                torch.testing.assert_close(logits, model(ids).logits[:, begin:end], **EXACT)


class TestRefusals:
    def test_a_sequence_classifier(self):
        model = build(HyenaDNAForSequenceClassification)
        for how in JOINS:
            with pytest.raises(ValueError, match="one prediction per row"):
                model(**joined(sequences_of(LENGTHS), how))

    @pytest.mark.parametrize("how", JOINS)
    def test_a_cache(self, how):
        model = build(HyenaDNAForCausalLM)
        batch = joined(sequences_of([5, 6]), how)
        with torch.no_grad(), pytest.raises(ValueError, match="neither a cache"):
            model(**batch, use_cache=True)
        with torch.no_grad():
            cache = model(torch.tensor([[7, 8]]), use_cache=True).past_key_values
            with pytest.raises(ValueError, match="neither a cache"):
                model(**batch, past_key_values=cache)
            assert cache.get_seq_length() == 2

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
    @pytest.mark.parametrize("how", JOINS[:3])
    def test_graphs(self, how):
        model = build(HyenaDNAModel)
        batch = joined(sequences_of([5, 6]), how)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        with torch.no_grad():
            for graph in (compiled, lambda **inputs: torch.export.export(model, (), inputs)):
                with pytest.raises(Exception, match="graph cannot follow"):
                    graph(**batch)
            if how == "position_ids":  # the others are no arguments that torch.jit.trace can pass by name
                with pytest.raises(ValueError, match="graph cannot follow"):
                    torch.jit.trace(model, example_kwarg_inputs=batch, strict=False)

    @pytest.mark.parametrize("positions", [[0, 1, 2, 2], [0, 1, 3, 4], [3, 2, 1, 0], [0, 1, 1, 2], [1, 1, 1, 1]])
    def test_positions_that_neither_go_up_nor_restart(self, positions):
        model = build(HyenaDNAForCausalLM)
        with pytest.raises(ValueError, match="row 1 neither increase by one nor restart at 0"):
            model(torch.full((2, 4), 7), position_ids=torch.tensor([[0, 1, 2, 3], positions]))

    def test_shapes(self):
        model = build(HyenaDNAModel)
        ids = torch.full((2, 4), 7)
        for name in ("position_ids", "seq_idx"):
            with pytest.raises(ValueError, match=rf"{name} has shape \(2, 3\)"):
                model(ids, **{name: torch.zeros(2, 3, dtype=torch.long)})
        for edges in ([0, 3], [1, 4], [0, 3, 2, 4], [0, 5]):
            with pytest.raises(ValueError, match="it must increase from 0 to the length of the only row"):
                model(ids[:1], cu_seq_lens_q=torch.tensor(edges, dtype=torch.int32))
        with pytest.raises(ValueError, match="the only row"):
            model(ids, cu_seq_lens_q=torch.tensor([0, 4, 8], dtype=torch.int32))

    def test_each_sequence_counts_towards_max_seq_len(self):
        model = build(HyenaDNAModel)
        model(**joined(sequences_of([40, 40])))
        with pytest.raises(ValueError, match="41 positions.*max_seq_len is 40"):
            model(**joined(sequences_of([3, 41])))


@pytest.mark.parametrize("options", [
    {}, {"return_flash_attn_kwargs": True}, {"return_seq_idx": True},
    {"return_position_ids": False, "return_seq_idx": True}, {"return_flash_attn_kwargs": True, "return_seq_idx": True},
], ids=str)  # fmt: skip
def test_the_trainer_takes_the_step_of_the_padded_batch(tmp_path, monkeypatch, options):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # transformers 4 leaves the last run's there
    tokenizer = HyenaDNATokenizer()
    rows = [sequence.tolist() for sequence in sequences_of(LENGTHS)]
    # transformers counts the labels of a batch, the first of a padded row too if it has one.
    data = [{"input_ids": row, "labels": [-100, *row[1:]]} for row in rows]
    found = []
    for collator in (DataCollatorWithFlattening(**options), DataCollatorForTokenClassification(tokenizer)):
        model = build(HyenaDNAForCausalLM).float()
        arguments = TrainingArguments(
            str(tmp_path), report_to="none", save_strategy="no", logging_steps=1, max_steps=1, learning_rate=0.01,
            per_device_train_batch_size=len(data), dataloader_pin_memory=False, use_cpu=True, optim="sgd",
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=data, data_collator=collator)
        trainer.train()
        found.append((trainer.state.log_history[0]["loss"], [p.detach() for p in model.parameters()]))
    (loss, parameters), (expected_loss, expected) = found
    assert abs(loss - expected_loss) < 1e-4
    for mine, theirs in zip(parameters, expected):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
