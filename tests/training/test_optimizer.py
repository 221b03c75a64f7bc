import copy
import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from hyenadna_hf import HyenaDNAConfig, HyenaDNATokenizer
from hyenadna_hf.training import optimizer as optimizer_module
from hyenadna_hf.training.finetune import prepare
from hyenadna_hf.training.finetune_arguments import parse_arguments
from hyenadna_hf.training.optimizer import optimizer_cls_and_kwargs


def trainer_for(tmp_path, model=None, **kwargs):
    if model is None:
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


def test_muon_updates_the_matrices_of_the_blocks(tmp_path, monkeypatch):
    """Step by step against PyTorch's Muon, which computes in bfloat16, and AdamW, each with their own parameters."""
    monkeypatch.setattr(optimizer_module, "has_fast_bfloat16", lambda use_cpu: True)
    trainer = trainer_for(tmp_path, muon_learning_rate=0.02)
    optimizer = trainer.create_optimizer()
    model, twin = trainer.model, copy.deepcopy(trainer.model)
    matrices = {name for name, parameter in model.named_parameters() if re.search("(in|out)_proj.weight|fc", name)}
    matrices = {name for name in matrices if name.endswith("weight")}
    assert len(matrices) == 8  # of two blocks
    parameters = dict(twin.named_parameters())
    decayed = [p for n, p in parameters.items() if p.ndim > 1 and "filter_fn" not in n and n not in matrices]
    others = [p for n, p in parameters.items() if p.ndim == 1 or "filter_fn" in n]
    adamw, kwargs = Trainer.get_optimizer_cls_and_kwargs(trainer.args, twin)
    expected = [
        torch.optim.Muon([parameters[n] for n in matrices], 0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        adamw([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], **kwargs),
    ]
    ids = torch.arange(40).view(2, 20) % 4 + 7
    for step in range(4):
        for each, used in ((model, [optimizer]), (twin, expected)):
            each.eval()(input_ids=ids, labels=torch.tensor([0, step % 3])).loss.backward()
            for part in used:
                part.step()
                part.zero_grad()
        if step == 1:  # as when a run is resumed
            state = optimizer.state_dict()
            optimizer = trainer_for(tmp_path, model, muon_learning_rate=0.02).create_optimizer()
            optimizer.load_state_dict(state)
        for name, parameter in model.named_parameters():
            # Muon makes rounding errors of gradients as large as the gradients, so nothing but equality will do.
            torch.testing.assert_close(parameter, parameters[name], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(5, 5), (24, 8), (7, 33), (1, 6)])
def test_orthogonal_in_float32(shape, monkeypatch):
    """Against float64, by the same polynomial of the singular values."""
    monkeypatch.setattr(optimizer_module, "has_fast_bfloat16", lambda use_cpu: False)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = optimizer_module.orthogonalise(matrix)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    torch.testing.assert_close(found.double(), left * values @ right, rtol=0, atol=1e-5)
    assert found.dtype == torch.float32


def test_muon_follows_the_schedule(tmp_path):
    trainer = trainer_for(tmp_path, muon_learning_rate=0.02)
    optimizer = trainer.create_optimizer()
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.model(input_ids=torch.arange(20)[None] % 4 + 7, labels=torch.tensor([0])).loss.backward()
    optimizer.step()
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_without_matrices_to_update_there_is_no_muon(tmp_path):
    frozen = AutoModelForSequenceClassification.from_config(HyenaDNAConfig(d_model=16, n_layer=1))
    frozen.base_model.requires_grad_(False)
    assert isinstance(trainer_for(tmp_path, frozen, muon_learning_rate=0.02).create_optimizer(), torch.optim.AdamW)
    assert isinstance(trainer_for(tmp_path, muon_learning_rate=0.0).create_optimizer(), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("tiny", (), 0.004),
        ("tiny", ("--muon_learning_rate", "0.03"), 0.03),
        ("tiny", ("--muon_learning_rate", "0"), 0.0),
        ("tiny", ("--optim", "sgd"), 0.0),
        ("tiny", ("--recipe", "prom_300_tata"), 0.0),
        ("cnn", (), 0.0),
    ],
)
def test_finetune_uses_muon_for_hyenadna(composition, tmp_path, model, options, expected):
    """By default twice the learning rate; a published recipe, another optimizer or another model has none."""
    if model == "tiny":
        config = HyenaDNAConfig(d_model=16, d_inner=16, n_layer=1, max_seq_len=302)
        model = tmp_path / "tiny"
        config.save_pretrained(model)
        HyenaDNATokenizer(config.max_position_embeddings).save_pretrained(model)
    options = [*options, "--dataset", composition, "--output_dir", tmp_path / "out", "--model", model]
    options += ["--learning_rate", "0.002", "--use_cpu", "--bf16", "false"]
    run = prepare(*parse_arguments(list(map(str, options))))
    rates = {group.get("muon", False): group["lr"] for group in run.trainer.create_optimizer().param_groups}
    assert rates.get(True, 0.0) == expected
    assert rates[False] == 0.002
