import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from hyenadna_hf import HyenaDNAConfig
from hyenadna_hf.training.optimizer import optimizer_cls_and_kwargs


def trainer_for(tmp_path, **kwargs):
    model = AutoModelForSequenceClassification.from_config(HyenaDNAConfig(d_model=16, n_layer=2, num_labels=3))
    args = TrainingArguments(tmp_path, learning_rate=0.01, weight_decay=0.1, report_to="none")
    return Trainer(model, args, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(model, args, **kwargs))


def test_filters_biases_and_norms_do_not_decay(tmp_path):
    trainer = trainer_for(tmp_path)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(trainer.model.parameters()))
    for name, parameter in trainer.model.named_parameters():
        expected = 0 if "filter_fn" in name or name.endswith("bias") or ".norm" in name or "ln_f" in name else 0.1
        assert decay[id(parameter)] == expected, name


def test_filters_learn_at_their_own_rate(tmp_path):
    trainer = trainer_for(tmp_path, filter_learning_rate=0.002)
    optimizer = trainer.create_optimizer()
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        assert rate[id(parameter)] == (0.002 if "filter_fn" in name else 0.01), name


def test_frozen_parameters_are_left_out(tmp_path):
    model = AutoModelForSequenceClassification.from_config(HyenaDNAConfig(d_model=16, n_layer=1))
    model.base_model.requires_grad_(False)
    args = TrainingArguments(tmp_path, report_to="none")
    _, kwargs = optimizer_cls_and_kwargs(model, args)
    trained = {id(p) for group in kwargs["params"] for p in group["params"]}
    assert trained == {id(p) for p in model.score.parameters()}
