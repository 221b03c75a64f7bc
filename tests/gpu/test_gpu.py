"""
The model on a GPU, with torch, transformers and pytest alone: `benchmarks/gpu.py` runs these tests where there is one.

`HYENADNA_TEST_DEVICE=cpu python -m pytest -m gpu tests/gpu` tries them where there is none. Values are in float64, so
that what is compared is what is computed and not rounding; a test of another dtype says so.
"""

import copy
import json
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from model.test_golden import NAMES, hub_config
from plans import IN_PLACE, LOW, PIECES, PREFIXES, ROWS, TRANSPARENT, WHOLE
from reference import randomise
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from transformers import set_seed

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)
from hyenadna_hf.distributed import average_gradients, context_parallel
from hyenadna_hf.model.configuration_hyenadna import CLASSIFIER_POOLINGS, MEMORY
from hyenadna_hf.model.plan_hyenadna import Plan
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

DEVICE = torch.device(os.environ.get("HYENADNA_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a GPU, or HYENADNA_TEST_DEVICE=cpu"),
]

LENGTHS = [17, 255, 1000, 4097]
TRAINING = {"transparent": TRANSPARENT, "whole": WHOLE, "rows": ROWS, "pieces": PIECES, "low": LOW}
INFERENCE = [TRANSPARENT, WHOLE, PIECES, LOW, IN_PLACE, replace(IN_PLACE, tuning=PREFIXES)]
SIZES = [{}, {"hyena_order": 3, "short_filter_order": 4}, {"bidirectional": True}]
HEADS = [HyenaDNAForCausalLM, HyenaDNAForMaskedLM, HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification]
C, SEP, PAD = 8, 1, 4
NUCLEOTIDES = range(7, 11)

training_plans = pytest.mark.parametrize("plan", TRAINING.values(), ids=TRAINING)
each_memory = pytest.mark.parametrize("memory", MEMORY)


@pytest.fixture(autouse=True)
def float32_is_float32(monkeypatch):
    """No TF32, which has ten bits and is the default of convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def build(model_class=HyenaDNAModel, dtype=torch.float64, **options):
    """A model on the device, and the same one on the CPU in float64."""
    torch.manual_seed(0)
    sizes = {"d_model": 10, "n_layer": 2, "max_seq_len": 5000, "filter_order": 8, "embed_dropout": 0.0}
    options.setdefault("bidirectional", model_class is HyenaDNAForMaskedLM)
    on_cpu = randomise(model_class(HyenaDNAConfig(**sizes | options))).double().eval()
    return copy.deepcopy(on_cpu).to(dtype).to(DEVICE), on_cpu


def batch_of(rows, length, masked=False):
    """Token ids and an attention mask on the CPU: rows padded on the left, on the right, and anywhere in turn."""
    mask = torch.ones(rows, length, dtype=torch.long)
    if masked:
        mask[::3, : length // 2] = 0
        mask[1::3, length - length // 3 :] = 0
        mask[2::3] = torch.rand(len(mask[2::3]), length) < 0.6
        mask[:, length // 2] = 1
    return {"input_ids": torch.randint(0, 12, (rows, length)), "attention_mask": mask}


def with_labels(head, batch):
    ids = batch["input_ids"]
    labels = {HyenaDNAForSequenceClassification: ids[:, 0] % 3, HyenaDNAForTokenClassification: ids % 3}
    return batch | {"labels": labels.get(head, ids)}


def moved(batch):
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


def close(found, expected, tolerance=1e-9):
    """Differences are shares of the largest value."""
    found, expected = (tensor.detach().cpu().double() for tensor in (found, expected))
    assert found.shape == expected.shape
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert difference <= tolerance * largest, f"{difference:.3g} of {largest:.3g}"


def all_close(found, expected, tolerance=1e-9):
    for mine, other in zip(found, expected, strict=True):
        close(mine, other, tolerance)


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def trained(model, batch, plan=None):
    """Hidden states, and the gradients of the mean of their squares."""
    model.zero_grad()
    hidden = model(**batch, plan=plan).last_hidden_state
    hidden.square().mean().backward()
    return [hidden, *gradients(model)]


def stepped(model, batch):
    """Logits, the loss, and its gradients."""
    model.zero_grad()
    out = model(**batch)
    out.loss.backward()
    return [out.logits, out.loss, *gradients(model)]


class TestGoldenValues:
    """
    What the published implementations gave on a CPU, in float32.

    Two of them differ by about 2e-5. In float64 the difference is their own rounding alone; in float32 ours is added
    to it, and a GPU sums in another order and has sines of its own.
    """

    PRECISIONS = pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 5e-5)])

    @PRECISIONS
    @pytest.mark.parametrize("name", NAMES)
    @torch.no_grad()
    def test_of_small_models(self, fixtures, name, dtype, tolerance):
        with safe_open(fixtures / "golden" / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            config = HyenaDNAConfig(**hub_config(json.loads(file.metadata()["config"])))
        golden = {key.removeprefix("golden."): tensors.pop(key) for key in list(tensors) if key.startswith("golden.")}
        model = (HyenaDNAForSequenceClassification if "classifier" in name else HyenaDNAForCausalLM)(config)
        renamed = (key.replace("model.backbone", "hyena.backbone").replace("model.lm", "lm") for key in tensors)
        model.load_state_dict(dict(zip(renamed, tensors.values())), strict=True)
        model = model.to(DEVICE, dtype).eval()
        ids, labels = golden["input_ids"], golden.get("labels", golden["input_ids"])
        out = model(ids.to(DEVICE), labels=labels.to(DEVICE), output_hidden_states=True)
        found = {"logits": out.logits, "loss": out.loss, "last_hidden_state": out.hidden_states[-1]}
        for key in found.keys() & golden.keys():
            torch.testing.assert_close(found[key].cpu().float(), golden[key], rtol=0, atol=tolerance)

    @PRECISIONS
    @pytest.mark.parametrize("compat, expected", [(True, "logits"), (False, "logits_each_row_alone_unpadded")])
    @torch.no_grad()
    def test_of_a_real_classifier(self, fixtures, compat, expected, dtype, tolerance):
        golden = load_file(fixtures / "golden" / "remag_0.3.3_outputs.safetensors")
        folder = BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"]
        model = HyenaDNAForSequenceClassification.from_pretrained(folder, compat_padding=compat).to(DEVICE, dtype)
        ids = golden["golden.input_ids"].long().to(DEVICE)
        logits = model.eval()(ids, attention_mask=ids != PAD).logits
        torch.testing.assert_close(logits.cpu().float(), golden[f"golden.{expected}"], rtol=0, atol=tolerance)


class TestAgainstTheCPU:
    """Hidden states and gradients of the same model on the CPU, where modules are called on whole inputs."""

    @training_plans
    @pytest.mark.parametrize("length", LENGTHS)
    def test_gradients_of_each_plan(self, plan, length):
        on_device, on_cpu = build()
        batch = batch_of(2, length)
        all_close(trained(on_device, moved(batch), plan), trained(on_cpu, batch, TRANSPARENT))

    @training_plans
    @pytest.mark.parametrize("sizes", SIZES, ids=str)
    def test_gradients_with_masks(self, plan, sizes):
        on_device, on_cpu = build(**sizes, use_bias=False)
        batch = batch_of(3, 300, masked=True)
        all_close(trained(on_device, moved(batch), plan), trained(on_cpu, batch, TRANSPARENT))

    @each_memory
    @pytest.mark.parametrize("length", LENGTHS)
    def test_gradients_of_each_setting_of_memory(self, memory, length):
        on_device, on_cpu = build(d_model=40, filter_order=16)
        on_device.config.memory = memory
        batch = batch_of(2, length)
        all_close(trained(on_device, moved(batch)), trained(on_cpu, batch, TRANSPARENT))

    @pytest.mark.parametrize("sizes", SIZES, ids=str)
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("length", LENGTHS)
    @torch.no_grad()
    def test_inference(self, length, masked, sizes):
        on_device, on_cpu = build(**sizes)
        batch = batch_of(3, length, masked)
        expected = on_cpu(**batch, plan=TRANSPARENT, output_hidden_states=True).hidden_states
        for plan in INFERENCE:
            all_close(on_device(**moved(batch), plan=plan, output_hidden_states=True).hidden_states, expected)
        for memory in MEMORY:
            on_device.config.memory = memory
            all_close(on_device(**moved(batch), output_hidden_states=True).hidden_states, expected)

    @each_memory
    @pytest.mark.parametrize("head", HEADS)
    def test_losses_of_each_head(self, head, memory):
        """transformers computes those of language models in float32."""
        on_device, on_cpu = build(head, num_labels=3)
        on_device.config.memory = memory
        batch = with_labels(head, batch_of(3, 90, masked=True))
        all_close(stepped(on_device, moved(batch)), stepped(on_cpu, batch), 1e-5)

    @torch.no_grad()
    def test_a_model_that_has_been_used_moves(self):
        """On a CPU it keeps the spectra of its filters."""
        _, model = build()
        batch = batch_of(2, 300)
        expected = model(**batch)[0]
        close(model.to(DEVICE)(**moved(batch))[0], expected)
        close(model.cpu()(**batch)[0], expected)

    @pytest.mark.parametrize("plan", [TRANSPARENT, Plan("whole"), Plan("in_place")], ids=str)
    @torch.no_grad()
    def test_float32_of_a_published_size(self, plan):
        on_device, on_cpu = build(dtype=torch.float32, d_model=128, filter_order=64)
        batch = batch_of(1, 5000)
        close(on_device(**moved(batch), plan=plan)[0], on_cpu(**batch)[0], 1e-4)


class TestPadding:
    """Real positions are what their row gives alone, without its masked positions."""

    @pytest.mark.parametrize("sizes", SIZES, ids=str)
    @torch.no_grad()
    def test_hidden_states(self, sizes):
        model, _ = build(**sizes)
        batch = moved(batch_of(3, 300, masked=True))
        for plan in (None, *INFERENCE):
            together = model(**batch, plan=plan)[0]
            for hidden, row, real in zip(together, batch["input_ids"], batch["attention_mask"].bool()):
                close(hidden[real], model(row[real][None], plan=plan)[0][0])
                assert not hidden[~real].any()

    @pytest.mark.parametrize("pooling", CLASSIFIER_POOLINGS)
    @torch.no_grad()
    def test_pooled_logits(self, pooling):
        model, _ = build(HyenaDNAForSequenceClassification, classifier_pooling=pooling)
        ids, mask = moved(batch_of(3, 300, masked=True)).values()
        alone = [model(row[real][None]).logits for row, real in zip(ids, mask.bool())]
        close(model(ids, mask).logits, torch.cat(alone))

    @each_memory
    @torch.no_grad()
    def test_float32_within_1e_5(self, memory):
        """At initial weights, as in tests/model/test_padding.py."""
        model = HyenaDNAModel(HyenaDNAConfig(memory=memory)).to(DEVICE).eval()
        ids, mask = moved(batch_of(3, 300, masked=True)).values()
        for hidden, row, real in zip(model(ids, mask)[0], ids, mask.bool()):
            torch.testing.assert_close(hidden[real], model(row[real][None])[0][0], rtol=0, atol=1e-5)


class TestCache:
    @pytest.mark.parametrize("memory", ["auto", "low"])
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("order, short", [(2, 3), (3, 1)])
    @torch.no_grad()
    def test_a_prompt_then_some_then_one_by_one_is_one_forward(self, order, short, masked, memory):
        """Past what the prompt's cache looks ahead to."""
        model, _ = build(hyena_order=order, short_filter_order=short, memory=memory)
        ids, mask = moved(batch_of(3, 600, masked)).values()
        cache, hidden = None, []
        for piece in torch.arange(600).split([300, 50, *[1] * 250]):
            out = model(ids[:, piece], mask[:, piece], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            hidden.append(out.last_hidden_state)
        close(torch.cat(hidden, 1), model(ids, mask, plan=TRANSPARENT)[0])
        assert cache.layers[0].signal.device.type == DEVICE.type

    @torch.no_grad()
    def test_rows_are_repeated_and_chosen(self):
        model, _ = build()
        ids, mask = moved(batch_of(3, 200, masked=True)).values()
        cache = model(ids[:, :150], mask[:, :150], use_cache=True).past_key_values
        cache.batch_repeat_interleave(2)
        cache.reorder_cache(torch.tensor([5, 0, 3], device=DEVICE))
        ids, mask = ids[[2, 0, 1]], mask[[2, 0, 1]]
        found = model(ids[:, 150:], mask[:, 150:], past_key_values=cache)[0]
        close(found, model(ids, mask, plan=TRANSPARENT)[0][:, 150:])


class TestGeneration:
    TOKENIZER = HyenaDNATokenizer()
    OPTIONS = {"max_new_tokens": 60, "eos_token_id": None}
    WAYS = [{}, {"use_cache": False}, {"num_beams": 3}, {"repetition_penalty": 1.3}]

    @pytest.fixture
    def prompt(self):
        """Rows of 50, 37 and 1 real positions, padded on the left."""
        ids = torch.randint(7, 11, (3, 50))
        ids[1, :13] = PAD
        ids[2, :49] = PAD
        return {"input_ids": ids, "attention_mask": (ids != PAD).long()}

    @pytest.mark.parametrize("memory", ["auto", "low"])
    @pytest.mark.parametrize("options", WAYS, ids=str)
    def test_without_chance_it_is_that_of_the_cpu(self, prompt, options, memory):
        on_device, on_cpu = build(HyenaDNAForCausalLM)
        on_device.config.memory = memory
        found = on_device.generate(**moved(prompt), **self.OPTIONS, do_sample=False, **options)
        assert found.device.type == DEVICE.type
        assert torch.equal(found.cpu(), on_cpu.generate(**prompt, **self.OPTIONS, do_sample=False, **options))

    @pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
    @torch.no_grad()
    def test_the_logits_of_each_step_are_those_of_the_whole_sequence(self, prompt, dtype, tolerance):
        model, _ = build(HyenaDNAForCausalLM, dtype)
        options = {"do_sample": True, "output_logits": True, "return_dict_in_generate": True}
        out = model.generate(**moved(prompt), **self.OPTIONS, **options)
        mask = torch.cat([prompt["attention_mask"], torch.ones(3, 60, dtype=torch.long)], dim=1).to(DEVICE)
        close(torch.stack(out.logits, 1), model(out.sequences, mask).logits[:, 49:-1], tolerance)

    def sampled(self, prompt, **options):
        """All nucleotides are likely, and nothing else is made."""
        model, _ = build(HyenaDNAForCausalLM)
        with torch.no_grad():
            model.lm_head.weight.mul_(0.01)
        others = [token for token in range(16) if token not in NUCLEOTIDES]
        set_seed(3)
        made = model.generate(**moved(prompt), **self.OPTIONS | options, do_sample=True, suppress_tokens=others)
        assert made.device.type == DEVICE.type
        return made.cpu()

    def test_sampling_depends_on_the_seed_alone(self, prompt):
        made = self.sampled(prompt)
        assert torch.equal(made, self.sampled(prompt)) and made.shape == (3, 110)
        assert set(made[:, 50:].flatten().tolist()) == set(NUCLEOTIDES)
        assert not torch.equal(made, self.sampled(prompt, temperature=0.5, top_k=2))

    @pytest.mark.parametrize("stops, options", [
        (["C"], {"eos_token_id": C}),
        (["C"], {"eos_token_id": [SEP, C]}),
        (["ACG", "GT", "TA"], {"eos_token_id": SEP, "stop_strings": ["acg", "GU", "TA"], "tokenizer": TOKENIZER}),
    ], ids=["a token", "several tokens", "strings"])  # fmt: skip
    def test_each_row_stops_where_it_is_told_to(self, prompt, stops, options):
        """Random numbers of a step are those of all rows, so that rows which go on are as they were."""
        stopped, ends = self.sampled(prompt, **options), []
        for row, plain in zip(stopped, self.sampled(prompt)):
            texts = {end: self.TOKENIZER.decode(plain[:end]) for end in range(51, 111)}
            end = next(end for end, text in texts.items() if text.endswith(tuple(stops)))
            assert torch.equal(row[:end], plain[:end]) and (row[end:] == PAD).all()
            ends.append(end)
        assert stopped.shape[1] == max(ends)


class TestHooks:
    SITES = ["layers.0", "layers.1.mixer.in_proj", "layers.1.mixer.filter_fn", "layers.0.mlp.fc2", "ln_f"]

    def captured(self, model, ids, sites, plan=None):
        """Return the tensors that hooks see on some modules, after checking that nothing has changed them since."""
        seen, backbone = {}, model.backbone

        def keep(site):
            def hook(module, args, output):
                tensors = [tensor.detach() for tensor in (args[0], output)]
                seen[site] = tensors, [tensor.clone() for tensor in tensors]

            return hook

        handles = [backbone.get_submodule(site).register_forward_hook(keep(site)) for site in sites]
        assert model.plan(ids).path == "transparent"
        hidden = model(ids, plan=plan)[0]
        if hidden.requires_grad:
            hidden.square().mean().backward()
        for handle in handles:
            handle.remove()
        model(ids)
        for tensors, then in seen.values():
            assert all(map(torch.equal, tensors, then))
        return {site: then for site, (_, then) in seen.items()}

    @each_memory
    @pytest.mark.parametrize("with_gradients", [False, True])
    @pytest.mark.parametrize("length", [255, 1000])
    def test_one_sees_what_the_transparent_path_computes(self, length, with_gradients, memory):
        model, _ = build(memory=memory)
        ids = batch_of(2, length)["input_ids"].to(DEVICE)
        with torch.set_grad_enabled(with_gradients):
            expected = self.captured(model, ids, self.SITES, TRANSPARENT)
            for site in self.SITES:
                all_close(self.captured(model, ids, [site])[site], expected[site])


class TestTraining:
    @training_plans
    def test_dropout_is_the_same_when_it_is_computed_again(self, plan):
        """A finite difference along the gradient, with the same random numbers of the device."""
        model = build(resid_dropout=0.3, hyena_dropout=0.3, embed_dropout=0.1)[0].train()
        batch = moved(batch_of(2, 50))

        def loss():
            torch.manual_seed(3)
            return model(**batch, plan=plan)[0].square().mean()

        loss().backward()
        squared = sum(float(gradient.square().sum()) for gradient in gradients(model))
        step, losses = 1e-6 / squared**0.5, []
        for sign in (1, -2):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += sign * step * parameter.grad
            losses.append(float(loss().detach()))
        assert abs((losses[0] - losses[1]) / (2 * step) / squared - 1) < 1e-5

    @each_memory
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_gradient_checkpointing_changes_nothing(self, reentrant, memory):
        model = build(memory=memory)[0].train()
        batch = moved(batch_of(3, 300, masked=True))
        expected = trained(model, batch)
        # The second name is the first one's in transformers 4.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        all_close(trained(model, batch), expected)


class TestHalfPrecision:
    """Against wider ones. The bounds are twice what a CPU gives at most; bfloat16 has eight bits, float16 eleven."""

    dtypes = pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 0.1), (torch.float16, 0.0125)], ids=str)

    @training_plans
    @dtypes
    def test_training_under_autocast(self, dtype, bound, plan):
        """With a scale for the loss in float16, which nothing overflows."""
        model, _ = build(dtype=torch.float32)
        batch = moved(batch_of(2, 300))
        expected = trained(model, batch, TRANSPARENT)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        scaler = torch.amp.GradScaler(DEVICE.type, init_scale=1024.0, enabled=dtype is torch.float16)
        with torch.autocast(DEVICE.type, dtype):
            hidden = model(**batch, plan=plan).last_hidden_state
            loss = hidden.square().mean()
        scale = scaler.get_scale()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        all_close([hidden, *gradients(model)], expected, bound)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())

    @each_memory
    @dtypes
    @torch.no_grad()
    def test_inference_under_autocast(self, dtype, bound, memory):
        model, _ = build(dtype=torch.float32, memory=memory)
        ids, mask = moved(batch_of(3, 300, masked=True)).values()
        expected = model(ids, mask)[0]
        with torch.autocast(DEVICE.type, dtype):
            close(model(ids, mask)[0], expected, bound)
            cache = model(ids[:, :250], mask[:, :250], use_cache=True).past_key_values
            close(model(ids[:, 250:], mask[:, 250:], past_key_values=cache)[0], expected[:, 250:], bound)

    @each_memory
    @dtypes
    @torch.no_grad()
    def test_weights_of_that_dtype(self, dtype, bound, memory):
        model, exact = build(dtype=dtype, memory=memory)
        batch = batch_of(3, 300, masked=True)
        expected = exact.to(dtype).double()(**batch)[0]
        ids, mask = moved(batch).values()
        close(model(ids, mask)[0], expected, bound)
        cache = model(ids[:, :250], mask[:, :250], use_cache=True).past_key_values
        close(model(ids[:, 250:], mask[:, 250:], past_key_values=cache)[0], expected[:, 250:], bound)


@pytest.mark.skipif(not ON_GPU, reason="PyTorch does not tell the peak of a CPU's memory")
@pytest.mark.parametrize("purpose", ["inference", "training"])
def test_low_memory_takes_less(purpose):
    """At 16,384 positions of a published size, above what the weights take."""
    peaks = {}
    model = HyenaDNAModel(HyenaDNAConfig(n_layer=4, max_seq_len=16_386)).to(DEVICE).train(purpose == "training")
    ids = torch.randint(7, 11, (1, 16_384), device=DEVICE)
    for memory in ("fast", "low", "fast", "low"):  # the first two calls load libraries
        model.config.memory = memory
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.set_grad_enabled(model.training):
            hidden = model(ids)[0]
        if model.training:
            hidden.square().mean().backward()
        peaks[memory] = torch.cuda.max_memory_allocated() - before
        del hidden
        model.zero_grad()
    assert 0 < peaks["low"] < peaks["fast"], peaks


class TestCompiled:
    """By inductor, the default: on a GPU triton compiles its kernels, on a CPU a C++ compiler."""

    pytestmark = [
        pytest.mark.skipif(ON_GPU and find_spec("triton") is None, reason="needs triton"),
        pytest.mark.skipif(not ON_GPU and shutil.which("g++") is None, reason="needs a C++ compiler"),
        pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators"),
    ]

    @pytest.fixture(autouse=True)
    def no_graphs_of_other_tests(self):
        torch._dynamo.reset()

    @torch.no_grad()
    def test_forward(self):
        model, _ = build()
        compiled = torch.compile(model, fullgraph=True)
        for masked in (False, True):
            batch = moved(batch_of(3, 300, masked))
            close(compiled(**batch)[0], model(**batch)[0])

    def test_training_steps(self):
        model = build(HyenaDNAForSequenceClassification, num_labels=3)[0].train()
        batch = moved(with_labels(HyenaDNAForSequenceClassification, batch_of(3, 300, masked=True)))
        found = []
        for twin in (copy.deepcopy(model), model):
            optimizer = torch.optim.SGD(twin.parameters(), lr=0.01)
            forward = torch.compile(twin, fullgraph=True) if twin is model else twin
            losses = []
            for _ in range(3):
                optimizer.zero_grad()
                loss = forward(**batch).loss
                loss.backward()
                optimizer.step()
                losses.append(loss)
            found.append([*losses, *twin.parameters()])
        all_close(*found)
        assert losses[-1] < losses[0]


class TestContextParallelism:
    """With one rank, whose collectives are those of many."""

    @pytest.fixture(scope="class")
    def mesh(self):
        backend = "nccl" if ON_GPU else "gloo"
        if not dist.is_available() or not dist.is_backend_available(backend):
            pytest.skip(f"this PyTorch has no {backend}")
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=60))
        yield init_device_mesh(DEVICE.type, (1,), mesh_dim_names=("context",))
        dist.destroy_process_group()

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("head", [head for head in HEADS if head is not HyenaDNAForMaskedLM])
    def test_shards_give_the_values_and_gradients_of_the_model_by_itself(self, mesh, head, masked):
        model = build(head, num_labels=3)[0]
        batch = moved(with_labels(head, batch_of(3, 90, masked)))
        expected = stepped(model, batch)
        with context_parallel(model, mesh):
            assert model.plan(batch["input_ids"]).path == "whole"
            found = stepped(model, batch)
            average_gradients(model, mesh)
        all_close([*found[:2], *gradients(model)], expected, 1e-6)  # transformers computes losses in float32
