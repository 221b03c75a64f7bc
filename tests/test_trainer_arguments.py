"""The stock Trainer with arguments that change the loss, the batches, or how a model is called."""

import warnings

import peft
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig
from test_remote_code import run
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed
from transformers.utils import is_liger_kernel_available

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.baselines.named import baseline_config
from hyenadna_hf.data.collators import CausalCollator
from hyenadna_hf.training.adapters import LINEAR_LAYERS
from hyenadna_hf.training.loss import SmoothedCausalLoss

TOKENIZER = HyenaDNATokenizer(model_max_length=70)
# Its name in transformers 4, if the newer one is not there.
LENGTH_GROUPING = (
    {"train_sampling_strategy": "group_by_length"}
    if hasattr(TrainingArguments, "train_sampling_strategy")
    else {"group_by_length": True}
)
pytestmark = pytest.mark.filterwarnings("error::FutureWarning")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """transformers 4 leaves the last run's precision in the environment."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


def arguments(folder, **options):
    return TrainingArguments(
        str(folder), report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1,
        **{"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, **options},
    )  # fmt: skip


def with_adapter(model, config):
    with warnings.catch_warnings():  # PEFT asks transformers by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return peft.get_peft_model(model, config).eval()


LORA = LoraConfig(task_type="CAUSAL_LM", target_modules=list(LINEAR_LAYERS), init_lora_weights=False)
PROMPT = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
LANGUAGE_MODELS = {
    "plain": lambda make_model, config: make_model(HyenaDNAForCausalLM, config),
    "lora": lambda make_model, config: with_adapter(make_model(HyenaDNAForCausalLM, config), LORA),
    "gpt": lambda make_model, config: AutoModelForCausalLM.from_config(baseline_config("gpt")).eval(),
}


def smoothed(logits, labels, epsilon):
    """The mean over what is not -100 of the cross-entropy to smoothed targets, in float64."""
    targets = F.one_hot(labels.clamp(min=0), logits.shape[-1]).double() * (1 - epsilon) + epsilon / logits.shape[-1]
    each = -(targets * logits.double().log_softmax(-1)).sum(-1)
    return each[labels != -100].mean().item()


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_label_smoothing_is_that_of_the_next_token(make_model, config, tmp_path, kind):
    model = LANGUAGE_MODELS[kind](make_model, config)
    ids = torch.randint(7, 11, (3, 20))
    ids[0, 12:] = 4
    mask = (ids != 4).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(ids == 4, -100)}
    with torch.no_grad():
        out = model(**batch)
        losses = [
            Trainer(model, arguments(tmp_path, label_smoothing_factor=epsilon)).compute_loss(model, dict(batch)).item()
            for epsilon in (1e-6, 0.1)
        ]
    assert losses[0] == pytest.approx(out.loss.item(), abs=1e-4)
    assert losses[1] == pytest.approx(smoothed(out.logits[:, :-1], batch["labels"][:, 1:], 0.1), abs=1e-5)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_label_smoothing_with_padding_is_that_of_the_rows_alone(make_model, config, tmp_path, kind, side):
    """The collator leaves out the first label, which the Trainer would score against the padding before it."""
    model = LANGUAGE_MODELS[kind](make_model, config)
    rows = [{"input_ids": torch.randint(7, 11, (length,)).tolist()} for length in (20, 9, 3)]
    tokenizer = HyenaDNATokenizer(model_max_length=70, padding_side=side)
    trainer = Trainer(model, arguments(tmp_path, label_smoothing_factor=0.1))
    nats = positions = 0
    with torch.no_grad():
        together = trainer.compute_loss(model, CausalCollator(tokenizer)(rows)).item()
        for row in rows:
            ids = torch.tensor([row["input_ids"]])
            nats += smoothed(model(ids).logits[:, :-1], ids[:, 1:], 0.1) * (ids.shape[1] - 1)
            positions += ids.shape[1] - 1
    assert together == pytest.approx(nats / positions, abs=1e-5)


@pytest.mark.parametrize("model_class", [HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification])
def test_label_smoothing_of_classifiers_shifts_nothing(make_model, config, tmp_path, model_class):
    model = make_model(model_class, config)
    ids = torch.randint(7, 11, (3, 20))
    labels = torch.arange(3) % 2 if model_class is HyenaDNAForSequenceClassification else ids % 2
    trainer = Trainer(model, arguments(tmp_path, label_smoothing_factor=0.1))
    with torch.no_grad():
        loss = trainer.compute_loss(model, {"input_ids": ids, "labels": labels}).item()
        assert loss == pytest.approx(smoothed(model(ids).logits, labels, 0.1), abs=1e-5)


def test_label_smoothing_behind_a_soft_prompt(make_model, config, tmp_path):
    """The Trainer's own fails there, for whichever model; ours is a loss function, and counts the first label."""
    model = with_adapter(make_model(HyenaDNAForCausalLM, config), PROMPT)
    ids = torch.randint(7, 11, (3, 20))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        out = model(**batch)
        losses = [
            Trainer(model, arguments(tmp_path), compute_loss_func=SmoothedCausalLoss(epsilon))
            .compute_loss(model, dict(batch))
            .item()
            for epsilon in (0.0, 0.1)
        ]
        with pytest.raises(AttributeError, match="model"):
            Trainer(model, arguments(tmp_path, label_smoothing_factor=0.1)).compute_loss(model, dict(batch))
    assert losses[0] == pytest.approx(out.loss.item(), abs=1e-5)
    assert losses[1] == pytest.approx(smoothed(out.logits[:, 2:-1], ids, 0.1), abs=1e-5)


REMOTE = """
import peft
from transformers import Trainer, TrainingArguments
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules.")
layers, ids = sys.argv[2].split(","), torch.arange(60).reshape(3, 20) % 4 + 7
found = []
for adapted in (False, True):
    if adapted:
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=layers, init_lora_weights=False)
        model = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        losses = [model(**batch).loss.item()]
        for epsilon in (1e-6, 0.1):
            options = TrainingArguments("out", report_to="none", use_cpu=True, label_smoothing_factor=epsilon)
            losses.append(Trainer(model, options).compute_loss(model, dict(batch)).item())
        each = -model(**batch).logits[:, :-1].log_softmax(-1)
        losses.append((0.9 * each.gather(-1, ids[:, 1:, None])[..., 0] + 0.1 * each.mean(-1)).mean().item())
    found.append(losses)
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["plain", "gpt"])
def test_label_smoothing_where_the_package_is_not_installed(make_model, config, tmp_path, kind):
    LANGUAGE_MODELS[kind](make_model, config).save_pretrained(tmp_path / "model")
    layers = LINEAR_LAYERS if kind == "plain" else ["c_attn"]
    for own, hardly, smooth, expected in run(REMOTE, tmp_path / "model", ",".join(layers), folder=tmp_path):
        assert hardly == pytest.approx(own, abs=1e-4) and smooth == pytest.approx(expected, abs=1e-5)
        assert abs(smooth - own) > 1e-3


def classifier():
    set_seed(5)
    sizes = {"d_model": 16, "filter_order": 16, "max_seq_len": 70, "embed_dropout": 0.0}
    return HyenaDNAForSequenceClassification(HyenaDNAConfig(**sizes, classifier_dropout=0.0, resid_dropout=0.0))


def labelled(count=24, **columns):
    rows = []
    for i in range(count):
        encoding = TOKENIZER((["ACG", "TTG"][i % 2] * 20)[: 8 + (7 * i) % 40])
        rows.append({**encoding, "labels": i % 2, **{name: values[i] for name, values in columns.items()}})
    return Dataset.from_list(rows)


def trainer_of(folder, model=None, data=None, compute_metrics=None, collator=None, **options):
    data = labelled() if data is None else data
    return Trainer(
        model or classifier(),
        arguments(folder, **{"max_steps": 3, "learning_rate": 1e-2, **options}),
        train_dataset=data,
        eval_dataset=data,
        data_collator=collator or DataCollatorWithPadding(TOKENIZER),
        processing_class=TOKENIZER,
        compute_metrics=compute_metrics,
    )


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("model_class", [HyenaDNAForCausalLM, HyenaDNAForSequenceClassification])
def test_neftune_is_noise_in_training_only(make_model, config, tmp_path, model_class):
    found = {}
    for alpha in (None, 0.0, 20.0):
        set_seed(5)
        model = model_class(config)
        collator = CausalCollator(TOKENIZER) if model_class is HyenaDNAForCausalLM else None
        data = labelled().remove_columns("labels") if collator else labelled()
        trainer = trainer_of(tmp_path, model, data, collator=collator, neftune_noise_alpha=alpha, learning_rate=0.0)
        before = trainer.evaluate()["eval_loss"]
        found[alpha] = losses(trainer)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(before)
        assert not model.get_input_embeddings()._forward_hooks
    assert found[0.0] == pytest.approx(found[None])
    assert found[20.0] != pytest.approx(found[None], abs=1e-3)


def test_neftune_adds_no_noise_at_padding(make_model, config, tmp_path):
    """A masked position stays out of the result, whatever a hook adds to its embedding."""
    model = make_model(HyenaDNAForSequenceClassification, config).train()
    ids, mask = torch.tensor([[4, 4, 7, 8, 9]]), torch.tensor([[0, 0, 1, 1, 1]])
    hidden = []
    for alpha in (1.0, 100.0):  # as the Trainer's hook does, but at masked positions only
        handle = model.get_input_embeddings().register_forward_hook(
            lambda module, args, out, alpha=alpha: out + alpha * (args[0] == 4)[..., None]
        )
        hidden.append(model(ids, mask).logits)
        handle.remove()
    torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=0)


def test_batches_of_like_lengths_have_the_same_rows(tmp_path):
    trainer = trainer_of(tmp_path, data=labelled(200), **LENGTH_GROUPING)
    seen, widths = [], []
    for batch in trainer.get_train_dataloader():
        seen += [tuple(row[row != 4].tolist()) for row in batch["input_ids"]]
        widths.append((batch["attention_mask"].sum(1).max() - batch["attention_mask"].sum(1).min()).item())
    assert sorted(seen) == sorted(tuple(row) for row in trainer.train_dataset["input_ids"])
    assert sorted(widths)[len(widths) // 2] < 5  # of 40; in random order about 25
    assert all(loss > 0 for loss in losses(trainer))


@pytest.mark.parametrize("model_class", [HyenaDNAForCausalLM, HyenaDNAForSequenceClassification])
def test_average_tokens_across_devices_changes_nothing_on_one(tmp_path, model_class):
    found = []
    for average in (True, False):
        set_seed(5)
        model = model_class(HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=70, embed_dropout=0.0))
        collator = CausalCollator(TOKENIZER) if model_class is HyenaDNAForCausalLM else None
        data = labelled().remove_columns("labels") if collator else labelled()
        options = {"average_tokens_across_devices": average, "gradient_accumulation_steps": 2}
        found.append(losses(trainer_of(tmp_path, model, data, collator=collator, **options)))
    assert found[0] == pytest.approx(found[1])


def accuracy(output):
    return {"accuracy": float((output.predictions.argmax(-1) == output.label_ids).mean())}


class BatchAccuracy:
    """Counts until the last batch."""

    def __init__(self):
        self.right = self.rows = 0

    def __call__(self, output, compute_result):
        self.right += int((output.predictions.argmax(-1) == output.label_ids).sum())
        self.rows += len(output.label_ids)
        if not compute_result:
            return {}
        found = {"accuracy": self.right / self.rows}
        self.__init__()
        return found


def test_metrics_by_batch_and_by_accumulated_batches_are_those_of_the_whole(tmp_path):
    model = classifier()
    whole = trainer_of(tmp_path, model, compute_metrics=accuracy)
    whole.train()
    expected, predictions = whole.evaluate(), whole.predict(whole.eval_dataset).predictions
    by_batch = trainer_of(tmp_path, model, compute_metrics=BatchAccuracy(), batch_eval_metrics=True).evaluate()
    parts = trainer_of(tmp_path, model, compute_metrics=accuracy, eval_accumulation_steps=1)
    for found in (by_batch, parts.evaluate()):
        assert found["eval_accuracy"] == expected["eval_accuracy"]
        assert found["eval_loss"] == pytest.approx(expected["eval_loss"])
    assert (parts.predict(parts.eval_dataset).predictions == predictions).all()
    apart = trainer_of(tmp_path, model, eval_do_concat_batches=False).predict(whole.eval_dataset).predictions
    assert [len(one) for one in apart] == [4] * 6 and torch.tensor(predictions).equal(
        torch.cat([torch.as_tensor(one) for one in apart])
    )


def test_predictions_of_a_language_model_in_parts(tmp_path, make_model, config):
    """Batches differ in width: the Trainer pads them with -100."""
    model = make_model(HyenaDNAForCausalLM, config)
    data = labelled().remove_columns("labels")
    options = {"model": model, "data": data, "collator": CausalCollator(TOKENIZER)}
    whole = trainer_of(tmp_path, **options).predict(data)
    parts = trainer_of(tmp_path, eval_accumulation_steps=2, **options).predict(data)
    assert (whole.predictions == parts.predictions).all() and (whole.label_ids == parts.label_ids).all()
    first = CausalCollator(TOKENIZER)([data[i] for i in range(4)])
    with torch.no_grad():
        logits = model(first["input_ids"], first["attention_mask"]).logits
    torch.testing.assert_close(torch.tensor(whole.predictions[:4, : logits.shape[1]]), logits, rtol=0, atol=1e-5)


def test_inputs_and_losses_for_metrics(tmp_path):
    seen = []

    def metrics(output):
        seen.append((output.inputs, output.losses))
        return {}

    trainer = trainer_of(tmp_path, compute_metrics=metrics, include_for_metrics=["inputs", "loss"])
    loss = trainer.evaluate()["eval_loss"]
    ((inputs, each),) = seen
    assert [[t for t in row if t not in (4, -100)] for row in inputs.tolist()] == list(
        trainer.eval_dataset["input_ids"]
    )
    assert len(each) == 24 and each.mean() == pytest.approx(loss)


def test_prediction_loss_only(tmp_path):
    model = classifier()
    expected = trainer_of(tmp_path, model).predict(labelled())
    found = trainer_of(tmp_path, model, prediction_loss_only=True).predict(labelled())
    assert found.predictions is None and found.label_ids is None
    assert found.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"])


def test_label_names(tmp_path):
    model = classifier()
    found = trainer_of(tmp_path, model, label_names=["labels"]).evaluate()
    assert found["eval_loss"] == pytest.approx(trainer_of(tmp_path, model).evaluate()["eval_loss"])
    assert trainer_of(tmp_path, model).label_names == ["labels"]
    assert trainer_of(tmp_path, HyenaDNAForCausalLM(model.config)).label_names == ["labels"]


@pytest.mark.parametrize("model_class", [HyenaDNAForCausalLM, HyenaDNAForSequenceClassification])
def test_a_column_that_no_model_has_is_dropped_or_named(tmp_path, model_class):
    model = classifier() if model_class is HyenaDNAForSequenceClassification else model_class(classifier().config)
    data = labelled(4, weight=[1.0, 2.0, 3.0, 4.0])
    data = (
        data if model_class is HyenaDNAForSequenceClassification else data.map(lambda row: {"labels": row["input_ids"]})
    )
    data = data.map(lambda row: {name: value[:8] if isinstance(value, list) else value for name, value in row.items()})
    kept = trainer_of(tmp_path, model, data.remove_columns("weight"), remove_unused_columns=False)
    dropped = trainer_of(tmp_path, model, data)
    assert dropped.evaluate()["eval_loss"] == pytest.approx(kept.evaluate()["eval_loss"])
    for entry in ("train", "evaluate"):
        trainer = trainer_of(tmp_path, model, data, remove_unused_columns=False)
        with pytest.raises(TypeError, match=f"{model_class.__name__}.*: weight"):
            getattr(trainer, entry)()


@pytest.mark.parametrize(
    "model_class", [HyenaDNAForCausalLM, pytest.param(HyenaDNAForSequenceClassification, marks=pytest.mark.slow)]
)
def test_compiled_training_is_the_same(tmp_path, model_class):
    found = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        set_seed(5)
        torch._dynamo.reset()
        sizes = {"d_model": 16, "n_layer": 1, "filter_order": 16, "max_seq_len": 70}
        model = model_class(HyenaDNAConfig(**sizes, embed_dropout=0.0))
        collator = CausalCollator(TOKENIZER) if model_class is HyenaDNAForCausalLM else None
        data = labelled(4).remove_columns("labels") if collator else labelled(4)
        trainer = trainer_of(tmp_path, model, data, collator=collator, **options)
        found.append([*losses(trainer), trainer.evaluate()["eval_loss"]])
        trainer.save_model(tmp_path / "saved")
        again = model_class.from_pretrained(tmp_path / "saved")
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.skipif(is_liger_kernel_available(), reason="Liger is installed")
def test_where_liger_is_not_installed_the_trainer_says_so(tmp_path):
    with pytest.raises(ImportError, match="liger"):
        trainer_of(tmp_path, use_liger_kernel=True).train()
