"""The setting `memory`, the plans it leads to, and spectra of filters that are kept; values in float64."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from plans import IN_PLACE, PIECES, ROWS, TRANSPARENT, WHOLE
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForMaskedLM, HyenaDNAModel
from hyenadna_hf.model.configuration_hyenadna import MEMORY
from hyenadna_hf.model.modeling_hyenadna import MODULES
from hyenadna_hf.model.plan_hyenadna import choose_plan
from hyenadna_hf.model.tuning_hyenadna import TUNING


def model_of(model_class=HyenaDNAModel, **fields):
    torch.manual_seed(0)
    sizes = {"d_model": 18, "n_layer": 2, "max_seq_len": 300, "filter_order": 8, "embed_dropout": 0.0}
    return randomise(model_class(HyenaDNAConfig(**{**sizes, **fields}))).double().eval()


def whole(model, *args, **kwargs):
    """The reference: modules called on whole inputs."""
    return model(*args, plan=TRANSPARENT, **kwargs)[0]


def kept(model):
    return [layer.mixer.kept and layer.mixer.kept.spectra for layer in model.backbone.layers]


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    order=st.integers(2, 4),
    bidirectional=st.booleans(),
    masked=st.booleans(),
    memory=st.sampled_from(MEMORY),
    plan=st.sampled_from([WHOLE, IN_PLACE, None]),
    least_prefix=st.sampled_from([1, 64]),
)
@torch.no_grad()
def test_values(lengths, order, bidirectional, masked, memory, plan, least_prefix):
    """One after the other, so that what one length left serves, or must not serve, the next."""
    model = model_of(hyena_order=order, bidirectional=bidirectional, memory=memory, use_bias=order != 3)
    if plan is not None:
        tuning = plan.tuning._replace(least_prefix=least_prefix)
        plan = replace(plan, keeps_spectra=memory != "low", tuning=tuning)
    for length in lengths:
        ids = torch.randint(0, 12, (2, length))
        mask = (torch.rand(2, length) < 0.7).long() if masked else None
        expected = whole(model, ids, attention_mask=mask)
        torch.testing.assert_close(model(ids, attention_mask=mask, plan=plan)[0], expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_they_are_kept_while_they_are_right():
    model = model_of()
    ids = torch.randint(7, 11, (1, 60))
    model(ids)
    before = kept(model)
    model(ids[:, :50])  # another length, the same transform size
    assert all(now is then for now, then in zip(kept(model), before))
    model(ids[:, :20])
    assert not any(now is then for now, then in zip(kept(model), before))


@torch.no_grad()
def test_other_threads_go_on_with_what_they_read():
    """A replaced object stays as it was."""
    model = model_of()
    model(torch.randint(7, 11, (1, 60)))
    before = [layer.mixer.kept for layer in model.backbone.layers]
    copies = [[spectrum.clone() for spectrum in spectra.spectra] for spectra in before]
    model(torch.randint(7, 11, (1, 20)))
    for spectra, copied in zip(before, copies):
        assert all(map(torch.equal, spectra.spectra, copied))


CHANGES = {
    "in place": lambda p: p.mul_(1.5),
    "behind the back of autograd": lambda p: p.data.mul_(1.5),
    "other storage": lambda p: setattr(p, "data", p.data * 1.5),
}


@torch.no_grad()
@pytest.mark.parametrize("inference_mode", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "name", ["bias", "implicit_filter.0.weight", "implicit_filter.1.freq", "implicit_filter.6.weight"]
)
def test_changed_weights_count(name, change, inference_mode):
    model = model_of(bidirectional=True)
    ids = torch.randint(7, 11, (1, 60))
    with torch.inference_mode(inference_mode):
        before = model(ids)[0].clone()
    CHANGES[change](model.backbone.layers[1].mixer.filter_fn.get_parameter(name))
    with torch.inference_mode(inference_mode):
        after = model(ids)[0].clone()
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, whole(model, ids), rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_past_and_the_future_count():
    model = model_of(bidirectional=True)
    ids = torch.randint(7, 11, (1, 60))
    model(ids)
    model.backbone.layers[0].mixer.filter_fn_rev.implicit_filter["6"].weight.data.neg_()
    torch.testing.assert_close(model(ids)[0], whole(model, ids), rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_changed_frequency_counts():
    """It is a number, and no parameter, where it is not trained."""
    model = model_of(train_freq=False)
    ids = torch.randint(7, 11, (1, 60))
    before = model(ids)[0]
    model.backbone.layers[0].mixer.filter_fn.implicit_filter["1"].freq = 3.0
    assert not torch.allclose(model(ids)[0], before)
    torch.testing.assert_close(model(ids)[0], whole(model, ids), rtol=0, atol=1e-9)


@torch.no_grad()
def test_training_and_moving_drop_them():
    model = model_of()
    ids = torch.randint(7, 11, (1, 60))
    for drop in (lambda: model.train().eval(), lambda: model.float(), lambda: setattr(model.config, "memory", "low")):
        model(ids)
        assert all(spectra is not None for spectra in kept(model))
        drop()
        if model.config.memory == "low":
            model(ids)
        assert kept(model) == [None, None]


@torch.no_grad()
def test_copies_and_pickles_leave_them():
    model = model_of()
    ids = torch.randint(7, 11, (1, 60))
    expected = model(ids)[0]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kept(other) == [None, None]
        torch.testing.assert_close(other(ids)[0], expected, rtol=0, atol=0)
    assert not any("spectra" in name for name in model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("memory, stay", [("auto", [True, False]), ("fast", [True, True]), ("low", [False, False])])
def test_how_much_is_kept(memory, stay):
    """With "auto" only what is small, with "fast" everything."""
    model = model_of(memory=memory)
    tuning = TUNING._replace(kept_bytes=18 * 65 * 16)
    for length, stays in zip((60, 65), stay):
        ids = torch.randint(7, 11, (1, length))
        model(ids, plan=choose_plan(model.backbone, ids, MODULES, tuning=tuning))
        assert [spectra is not None for spectra in kept(model)] == [stays, stays], length
    with torch.enable_grad():
        model(ids)
    assert kept(model) == [None, None]


@torch.no_grad()
def test_adapters_and_trained_positions():
    """What is not arithmetic of plain parameters is made anew each time."""
    ids = torch.randint(7, 11, (1, 60))
    model = get_peft_model(model_of(), LoraConfig(target_modules=["implicit_filter.0"], init_lora_weights=False)).eval()
    adapted = model(input_ids=ids)[0]
    torch.testing.assert_close(adapted, whole(model, input_ids=ids), rtol=0, atol=1e-9)
    with model.disable_adapter():
        plain = model(input_ids=ids)[0]
        torch.testing.assert_close(plain, whole(model, input_ids=ids), rtol=0, atol=1e-9)
    assert not torch.allclose(adapted, plain)
    model = model_of(trained_positions=True)
    model(ids)
    assert kept(model) == [None, None]


@pytest.mark.parametrize("model_class", [HyenaDNAModel, HyenaDNAForMaskedLM])
def test_low_keeps_less_for_the_backward_pass(model_class):
    """At any length; values and gradients are those of the whole run."""
    sizes = {"bidirectional": model_class is HyenaDNAForMaskedLM, "d_model": 40}
    model = model_of(model_class, **sizes).train()
    ids = torch.randint(7, 11, (2, 200))
    kept_bytes, results = {}, {}
    for memory in ("auto", "low"):
        model.config.memory = memory
        model.zero_grad()
        tensors = {}

        def count(tensor, tensors=tensors):
            tensors[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(ids)[0].square().sum()
        kept_bytes[memory] = sum(tensors.values())
        loss.backward()
        results[memory] = [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]
    for low, auto in zip(results["low"], results["auto"]):
        torch.testing.assert_close(low, auto, rtol=1e-8, atol=1e-8)
    assert kept_bytes["low"] < kept_bytes["auto"] / 2


def test_plans():
    """Which path a call takes on a CPU, at the limits of the table."""
    model = model_of(max_seq_len=20_000)

    def path(length, memory="auto", rows=1, **kwargs):
        model.config.memory = memory
        return model.plan(torch.randint(7, 11, (rows, length)), **kwargs).path

    long = {"length": 16_384, "rows": 29}  # by 18 by 2 layers: more than 2^24
    assert path(255) == path(1) == "whole" and path(256) == path(16_384) == path(16_384, rows=28) == "rows"
    assert path(**long) == "pieces"
    assert path(1, "low") == "pieces" and path(**long, memory="fast") == "pieces"
    embeds = torch.zeros(1, 16_384, 18, dtype=torch.float64, requires_grad=True)
    for memory, expected in {"auto": ("transparent", "rows"), "low": ("pieces", "pieces")}.items():
        model.config.memory = memory  # of attribution, and of prompt tuning
        assert tuple(model.plan(inputs_embeds=inputs).path for inputs in (embeds, embeds * 1)) == expected
    model.config.memory = "auto"
    with torch.no_grad():
        assert path(255) == path(1, "fast") == "whole" and path(256) == path(64, rows=4) == "in_place"
        assert path(1, "low") == "in_place"
        with torch.autocast("cpu", torch.bfloat16):
            assert path(256) == "whole" and path(16_384) == "pieces"
        model.train()
        assert path(256) == path(16_384) == "rows"
        model.backbone.layers[0].gradient_checkpointing = True
        assert path(256) == "whole" and path(16_384) == "pieces"
        model.backbone.layers[0].gradient_checkpointing = False
        model.eval()
        cache = model(torch.randint(7, 11, (1, 9)), use_cache=True).past_key_values
        assert path(300, past_key_values=cache) == path(300, use_cache=True) == "in_place"
        assert path(32, rows=32, past_key_values=cache) == "whole"  # in single steps
        assert path(32, "low", past_key_values=cache) == "pieces"
        model.config.memory = "auto"
        kept = model.plan(torch.randint(7, 11, (1, 300)))
    assert str(kept) == (
        'in_place: inference of 300 positions on cpu, memory="auto"; spectra of the long filters are kept'
    )
    assert str(model.plan(torch.randint(7, 11, (1, 9)))) == 'whole: training of 9 positions on cpu, memory="auto"'


@torch.no_grad()
@pytest.mark.parametrize("memory", MEMORY)
def test_a_cache_is_filled_under_autocast_and_with_dropout(memory):
    """Where pieces are made of MLPs alone."""
    model = model_of(memory=memory, resid_dropout=1e-9).float()
    ids = torch.randint(7, 11, (2, 60))
    for train in (True, False):
        model.train(train)
        with torch.autocast("cpu", torch.bfloat16, enabled=not train):
            cache = model(ids[:, :50], use_cache=True).past_key_values
            found, expected = model(ids[:, 50:], past_key_values=cache)[0], model(ids)[0][:, 50:]
        error = (found - expected).abs().max() / expected.abs().max()
        assert error < (1e-4 if train else 0.05)  # bfloat16 has eight bits


def test_a_plan_that_cannot_be():
    model, ids = model_of(), torch.tensor([[7, 8]])
    with pytest.raises(ValueError, match=r'"in_place" is for inference.*torch.no_grad\(\)'):
        model(ids, plan=IN_PLACE)
    with pytest.raises(ValueError, match="keeps_spectra=True: no gradient"):
        model(ids, plan=replace(WHOLE, keeps_spectra=True))
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        for plan, reason in (
            (IN_PLACE, "single steps of a cache"),
            (PIECES, "mixer_in_pieces=True: pieces support neither a cache"),
            (ROWS, "without a cache or shards"),
        ):
            with pytest.raises(ValueError, match=reason):
                model(ids, past_key_values=cache, plan=plan)
    with pytest.raises(ValueError, match="path='fast': it must be transparent, whole, rows, pieces or in_place"):
        replace(WHOLE, path="fast")
        with pytest.raises(ValueError, match="keeps_spectra=True: spectra are kept on a CPU, not meta"):
            model.to("meta")(ids.to("meta"), plan=replace(WHOLE, keeps_spectra=True))


def test_it_is_not_saved(tmp_path):
    model = model_of(memory="low")
    model.save_pretrained(tmp_path)
    assert "memory" not in (tmp_path / "config.json").read_text()
    assert HyenaDNAModel.from_pretrained(tmp_path).config.memory == "auto"
    assert HyenaDNAModel.from_pretrained(tmp_path, memory="low").config.memory == "low"
    assert copy.deepcopy(model.config).memory == "low"


def test_what_it_may_be():
    with pytest.raises(ValueError, match="memory='little': it must be one of auto, low, fast"):
        HyenaDNAConfig(memory="little")
    model = model_of()
    model.config.memory = "much"
    with pytest.raises(ValueError, match="memory='much'"):
        model(torch.tensor([[7, 8]]))
