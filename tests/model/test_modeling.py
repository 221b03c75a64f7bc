import json
import math

import pytest
import torch
from torch import nn

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
)

CPU = torch.device("cpu")
HEADS = [HyenaDNAModel, HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification]


@pytest.mark.parametrize("model_class", HEADS)
def test_outputs_as_dict_and_tuple(make_model, config, model_class):
    model = make_model(model_class, config)
    ids = torch.randint(7, 12, (2, 9))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        as_tuple = model(ids, output_hidden_states=True, return_dict=False)
        model.config.return_dict = False
        by_config = model(input_ids=ids)
    width = {"HyenaDNAModel": 12, "HyenaDNAForCausalLM": 16}.get(model_class.__name__, 2)
    shape = (2, width) if model_class is HyenaDNAForSequenceClassification else (2, 9, width)
    assert out[0].shape == shape
    assert len(out.hidden_states) == config.n_layer + 1
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], out[0])
    assert isinstance(by_config, tuple) and torch.equal(by_config[0], out[0])


@pytest.mark.parametrize("model_class", HEADS)
def test_inputs_embeds_stand_for_input_ids(make_model, config, model_class):
    model = make_model(model_class, config)
    ids = torch.randint(0, 16, (2, 9))
    mask = torch.tensor([[0] * 3 + [1] * 6, [1] * 9])
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(
        model(inputs_embeds=embeds, attention_mask=mask)[0], model(ids, mask)[0], rtol=0, atol=1e-5
    )


def test_the_model_is_causal(make_model, config):
    model = make_model(HyenaDNAForCausalLM, config)
    ids = torch.randint(7, 11, (1, 40))
    changed = ids.clone()
    changed[0, 25:] = 11
    with torch.no_grad():
        a, b = model(ids).logits, model(changed).logits
    torch.testing.assert_close(a[:, :25], b[:, :25], rtol=0, atol=1e-4)
    assert (a[:, 25] - b[:, 25]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "exactly one of input_ids and inputs_embeds"),
        ({"input_ids": torch.ones(1, 3).long(), "inputs_embeds": torch.ones(1, 3, 12)}, "exactly one"),
        ({"input_ids": torch.ones(1, 3).long(), "output_attentions": True}, "output_attentions=True"),
        ({"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 4)}, r"\(1, 4\).*\(1, 3\)"),
        ({"input_ids": torch.ones(1, 71).long()}, "71 positions.*max_seq_len is 70"),
    ],
)
def test_bad_arguments_are_named(config, arguments, message):
    with pytest.raises(ValueError, match=message):
        HyenaDNAModel(config)(**arguments)


def test_nothing_of_the_length_of_max_seq_len_is_made_or_stored(tmp_path):
    config = HyenaDNAConfig(d_model=8, max_seq_len=10_000_000, filter_order=8)
    model = HyenaDNAForCausalLM(config)
    assert not list(model.buffers())
    assert max(value.numel() for value in model.state_dict().values()) < 1000
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 50_000
    assert model(torch.ones(1, 5).long()).logits.isfinite().all()


@pytest.mark.parametrize("model_class", HEADS)
def test_saving_and_loading_gives_the_same_outputs(make_model, config, model_class, tmp_path):
    model = make_model(model_class, config)
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    ids = torch.randint(7, 12, (2, 31))
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(ids)[0], model(ids)[0], rtol=0, atol=0)


def test_any_head_loads_from_any_other(make_model, config, tmp_path):
    ids = torch.randint(7, 12, (2, 31))
    for saved_class in HEADS:
        saved = make_model(saved_class, config)
        saved.save_pretrained(tmp_path / saved_class.__name__)
        expected = saved.base_model(ids).last_hidden_state
        for loaded_class in HEADS:
            loaded = loaded_class.from_pretrained(tmp_path / saved_class.__name__).eval()
            torch.testing.assert_close(loaded.base_model(ids).last_hidden_state, expected, rtol=0, atol=0)


def test_initialisation_is_the_original(config):
    config = HyenaDNAConfig(d_model=128, n_layer=8, max_seq_len=70)
    model = HyenaDNAForCausalLM(config)
    deviations = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            deviations.setdefault(name.split(".")[-1], []).append(module.weight.std())
            assert module.bias is None or not module.bias.any()
    for name, values in deviations.items():
        expected = 0.02 / math.sqrt(2 * 8) if name in ("out_proj", "fc2") else 0.02
        assert torch.stack(values).mean().item() == pytest.approx(expected, rel=0.05), name
    mixer = model.hyena.backbone.layers[0].mixer
    assert model.hyena.backbone.embeddings.word_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (mixer.filter_fn.implicit_filter["1"].freq == 10).all()
    assert mixer.filter_fn.bias.std().item() == pytest.approx(1, rel=0.2)
    assert mixer.short_filter.weight.abs().max().item() == pytest.approx(1 / math.sqrt(3), rel=0.02)


def test_initialisation_is_the_same_after_loading_a_part(config, tmp_path):
    """A checkpoint without one mixer: what is missing is initialised like new, what is there is kept."""
    from safetensors.torch import load_file, save_file

    config = HyenaDNAConfig(d_model=128, n_layer=2, max_seq_len=70)
    HyenaDNAForCausalLM(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    marked = {name: torch.full_like(value, 0.5) for name, value in weights.items() if "layers.1.mixer" not in name}
    save_file(marked, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert (value == 0.5).all() == (name in marked), name
    mixer = loaded.hyena.backbone.layers[1].mixer
    assert mixer.out_proj.weight.std().item() == pytest.approx(0.02 / 2, rel=0.05)
    assert mixer.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("field", ["embed_dropout", "resid_dropout", "hyena_dropout", "classifier_dropout"])
def test_each_dropout_acts_in_training_and_only_there(field):
    sizes = {"embed_dropout": 0.0, field: 0.5}
    model = HyenaDNAForSequenceClassification(HyenaDNAConfig(d_model=16, max_seq_len=70, **sizes))
    ids = torch.randint(7, 12, (2, 31))
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_tied_embeddings(tmp_path):
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=8, max_seq_len=20, tie_word_embeddings=True))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    ids = torch.randint(7, 12, (1, 9))
    assert torch.equal(loaded.eval()(ids).logits, model.eval()(ids).logits)


@pytest.mark.parametrize("rows", [17, 20, 24, 12])
def test_rows_equal_vocab_size_after_resizing_and_reloading(make_model, config, tmp_path, rows):
    model = make_model(HyenaDNAForCausalLM, config)
    model.resize_token_embeddings(rows)
    model.save_pretrained(tmp_path)
    loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path).eval()
    for m in (model, loaded):
        assert m.config.vocab_size == len(m.get_input_embeddings().weight) == len(m.lm_head.weight) == rows
    ids = torch.randint(7, 12, (1, 9))
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_max_seq_len_of_a_trained_checkpoint_is_fixed_unless_forced(make_model, config, tmp_path):
    model = make_model(HyenaDNAForCausalLM, config)
    model.save_pretrained(tmp_path)
    longer = HyenaDNAConfig.from_pretrained(tmp_path, max_seq_len=140)
    for arguments in ({"max_seq_len": 140}, {"max_position_embeddings": 140}, {"config": longer}):
        with pytest.raises(ValueError, match="max_seq_len=140.*max_seq_len=70.*force_max_seq_len=True"):
            HyenaDNAForCausalLM.from_pretrained(tmp_path, **arguments)
        forced = HyenaDNAForCausalLM.from_pretrained(tmp_path, **arguments, force_max_seq_len=True).eval()
        assert forced.config.max_seq_len == 140
        assert forced(torch.ones(1, 140).long()).logits.isfinite().all()
        # The weights are those of the checkpoint, the filters those of the new length.
        assert torch.equal(forced.lm_head.weight, model.lm_head.weight)
        rescaled = forced.hyena.backbone.layers[0].mixer.filter_fn(torch.arange(139))[..., ::2]
        original = model.hyena.backbone.layers[0].mixer.filter_fn(torch.arange(70))
        torch.testing.assert_close(rescaled[..., 0], original[..., 0], rtol=0, atol=1e-5)
        assert (rescaled - original).abs().max() > 1e-3
    assert HyenaDNAForCausalLM.from_pretrained(tmp_path, max_seq_len=70).config.max_seq_len == 70
    forced.save_pretrained(tmp_path / "forced")
    assert json.loads((tmp_path / "forced" / "config.json").read_text())["max_seq_len"] == 140
    assert HyenaDNAForCausalLM.from_pretrained(tmp_path / "forced").config.max_seq_len == 140


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_stay_near_float32(dtype):
    """A rounding of a few parts in 2^8 (bfloat16) or 2^11 (float16); filters and FFT stay in float32."""
    config = HyenaDNAConfig(d_model=32, max_seq_len=100_000, embed_dropout=0.0)
    model = HyenaDNAForCausalLM(config).eval()
    ids = torch.randint(7, 11, (1, 3001))
    tolerance = 30 * torch.finfo(dtype).eps
    with torch.no_grad():
        expected = model(ids).logits
        with torch.autocast("cpu", dtype=dtype):
            autocast = model(ids, output_hidden_states=True)
        filters = model.hyena.backbone.layers[0].mixer.filter_fn(torch.arange(3001))
        half = model.to(dtype)(ids, output_hidden_states=True)
        # Neighbouring positions, indistinguishable in bfloat16, keep their own filter values.
        assert half.logits.dtype == dtype
        rounded = model.hyena.backbone.layers[0].mixer.filter_fn(torch.arange(3001))
    assert rounded.dtype == torch.float32 and (rounded[..., 1:] != rounded[..., :-1]).float().mean() > 0.9
    assert (rounded - filters).abs().max() < tolerance * filters.abs().max()
    for logits in (autocast.logits, half.logits):
        assert (logits.float() - expected).abs().max() < tolerance * expected.abs().max()
    assert autocast.hidden_states[1].dtype == half.hidden_states[1].dtype == torch.float32


@pytest.mark.parametrize(
    "problem, labels, outputs",
    [
        (None, torch.tensor([0, 2, 1]), 3),
        ("single_label_classification", torch.tensor([0, 2, 1]), 3),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]), 3),
        ("regression", torch.tensor([0.5, -1, 2]), 1),
    ],
)
def test_losses_of_a_sequence_classifier(make_model, problem, labels, outputs):
    config = HyenaDNAConfig(d_model=8, max_seq_len=20, num_labels=outputs, problem_type=problem)
    model = make_model(HyenaDNAForSequenceClassification, config)
    result = model(torch.randint(7, 11, (3, 9)), labels=labels)
    expected = {
        "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
        "regression": lambda logits, target: nn.functional.mse_loss(logits[:, 0], target),
    }.get(problem, nn.functional.cross_entropy)(result.logits, labels)
    torch.testing.assert_close(result.loss, expected)


def test_language_model_loss_is_the_next_token(make_model, config):
    model = make_model(HyenaDNAForCausalLM, config)
    ids = torch.randint(7, 12, (2, 9))
    labels = ids.clone()
    labels[0, 4] = -100
    result = model(ids, labels=labels)
    picked = result.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    expected = -picked[labels[:, 1:] != -100].mean()
    torch.testing.assert_close(result.loss, expected)
    scaled = model(ids, labels=labels, num_items_in_batch=30).loss
    torch.testing.assert_close(scaled, expected * 15 / 30)


def test_offloaded_layers_give_the_same(make_model, config, tmp_path):
    pytest.importorskip("accelerate")
    model = make_model(HyenaDNAForCausalLM, config)
    model.save_pretrained(tmp_path)
    device_map = {"hyena.backbone.embeddings": "cpu", "hyena.backbone.layers.0": "cpu", "hyena.backbone.dropout": "cpu"}
    device_map |= {"hyena.backbone.layers.1": "disk", "hyena.backbone.ln_f": "cpu", "lm_head": "cpu"}
    offloaded = HyenaDNAForCausalLM.from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "off")
    assert offloaded.hyena.backbone.layers[1].mixer.filter_fn.bias.device.type == "meta"
    ids = torch.randint(7, 12, (1, 31))
    torch.testing.assert_close(offloaded.eval()(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


def test_device_map_and_meta_loading(make_model, config, tmp_path):
    pytest.importorskip("accelerate")
    model = make_model(HyenaDNAForCausalLM, config)
    model.save_pretrained(tmp_path)
    loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path, device_map="auto").eval()
    ids = torch.randint(7, 12, (1, 31), device=loaded.device)
    torch.testing.assert_close(loaded(ids).logits.cpu(), model(ids.cpu()).logits, rtol=0, atol=1e-5)
    with torch.device("meta"):
        shell = HyenaDNAForCausalLM(config)
    shell.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(shell.eval()(ids.cpu()).logits, model(ids.cpu()).logits)


def test_classifier_head_options(make_model):
    config = HyenaDNAConfig(d_model=8, max_seq_len=20, classifier_bias=False)
    assert HyenaDNAForSequenceClassification(config).score.bias is None
    assert HyenaDNAForTokenClassification(config).score.bias is None
    ids = torch.randint(7, 12, (2, 9))
    for pooling, pick in {
        "mean": lambda h: h.mean(1),
        "last": lambda h: h[:, -1],
        "first": lambda h: h[:, 0],
        "max": lambda h: h.amax(1),
    }.items():
        model = make_model(HyenaDNAForSequenceClassification, HyenaDNAConfig(d_model=8, classifier_pooling=pooling))
        pooled = pick(model.hyena(ids).last_hidden_state)
        torch.testing.assert_close(model(ids).logits, model.score(pooled), rtol=0, atol=1e-6)
