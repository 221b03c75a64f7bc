"""Whatever observes or rewrites a model meets whole inputs in the caller's layout, which nothing overwrites."""

import time

import peft
import pytest
import reference
import torch
from plans import TRANSPARENT
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel
from hyenadna_hf.model.modeling_hyenadna import MODULES
from hyenadna_hf.model.plan_hyenadna import find_observer

# In the layout (batch, length, channels) of the caller.
IN_LAYOUT = [
    *("embeddings", "embeddings.word_embeddings", "dropout", "layers.0", "layers.1", "ln_f"),
    *(f"layers.1.{name}" for name in ("norm1", "norm2", "mixer", "mixer.in_proj", "mixer.out_proj", "dropout")),
    *(f"layers.0.{name}" for name in ("norm1", "norm2", "mixer.in_proj", "mlp", "mlp.fc1", "mlp.fc2")),
]
FILTER_LAYERS = [f"layers.1.mixer.filter_fn.implicit_filter.{n}" for n in (0, 1, 2, 4, 6)]
SITES = [*IN_LAYOUT, *(f"layers.1.mixer.{name}" for name in ("short_filter", "dropout", "filter_fn")), *FILTER_LAYERS]
REWRITTEN = [f"layers.0.mixer.{name}" for name in ("in_proj", "short_filter", "out_proj")]
REWRITTEN += ["layers.1.mlp.fc1", FILTER_LAYERS[0], FILTER_LAYERS[-1]]

# How to rewrite a module, and how to write the result into plain weights.
REWRITES = {
    "prune": (lambda m: prune.l1_unstructured(m, "weight", amount=0.5), lambda m: prune.remove(m, "weight")),
    "weight_norm by a hook": (nn.utils.weight_norm, nn.utils.remove_weight_norm),
    "spectral_norm by a hook": (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
    "weight_norm": (parametrizations.weight_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "spectral_norm": (parametrizations.spectral_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
}
MEMORY = ["auto", "low", "fast"]
LENGTHS = [(17, 255, 256, 1000), pytest.param((16_384,), marks=pytest.mark.slow)]
lengths_of_inputs = pytest.mark.parametrize("lengths", LENGTHS, ids=["short", "long"])

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")


def model_of(**kwargs):
    torch.manual_seed(0)
    sizes = {"d_model": 10, "n_layer": 2, "filter_order": 8, "max_seq_len": 20_000, "embed_dropout": 0.0}
    return reference.randomise(HyenaDNAModel(HyenaDNAConfig(**{**sizes, **kwargs}))).double().eval()


def input_of(length):
    return torch.randint(7, 12, (1, length), generator=torch.Generator().manual_seed(length))


def cases(model, lengths):
    """Inputs of each length, under each setting of memory, without and with gradients."""
    for length in lengths:
        ids = input_of(length)
        for memory in MEMORY:
            for gradients in (False, True):
                model.config.memory = memory
                with torch.set_grad_enabled(gradients):
                    yield ids
    model.config.memory = "auto"


class Captures:
    """Tensors that forward hooks capture on some modules, with copies made at that moment."""

    def __init__(self, backbone, sites):
        self.seen = {}
        modules = [(site, backbone.get_submodule(site)) for site in sites]
        self.handles = [module.register_forward_hook(self._hook(site)) for site, module in modules]
        self.handles += [module.register_forward_pre_hook(self._pre_hook(site)) for site, module in modules]

    def _hook(self, site):
        return lambda module, args, output: self._keep(f"{site}, output", output)

    def _pre_hook(self, site):
        return lambda module, args: self._keep(f"{site}, input", args[0])

    def _keep(self, name, tensor):
        tensor = tensor.detach()
        self.seen[name] = tensor, tensor.clone()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def checked(self):
        """The values, once it is clear that nothing has changed them since."""
        for name, (tensor, then) in self.seen.items():
            assert torch.equal(tensor, then), name
        return {name: then for name, (_, then) in self.seen.items()}


def close(found, expected, what="", tolerance=1e-9):
    assert found.shape == expected.shape, what
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max(), what


@torch.no_grad()
def expected_captures(model, ids):
    """All sites at once, in the transparent path."""
    with Captures(model.backbone, SITES) as captures:
        output = model(ids, plan=TRANSPARENT)[0]
    return captures.checked(), output


def assert_named(model, ids, name):
    plan = model.plan(ids)
    assert plan.path == "transparent" and name in plan.reason, plan


@lengths_of_inputs
def test_hooks(lengths):
    """One hooked module at a time."""
    model = model_of()
    expected = {length: expected_captures(model, input_of(length)) for length in lengths}
    for site in SITES:
        for ids in cases(model, lengths):
            values, output = expected[ids.shape[1]]
            with Captures(model.backbone, [site]) as captures:
                assert_named(model, ids, f"on {site}")
                found = model(ids)[0]
            seen = captures.checked()
            assert seen.keys() == {f"{site}, input", f"{site}, output"}
            for name, value in seen.items():
                close(value, values[name], f"{name}, {ids.shape[1]} positions, {model.config.memory}")
            close(found, output, site)
            assert model.plan(ids).path != "transparent"


def test_what_hooks_see_is_the_definition():
    model = model_of()
    ids = torch.randint(7, 12, (1, 300))
    with torch.no_grad():
        parameters = reference.parameters(model)
        states = reference.hidden_states(parameters, model.config, ids[0])
        kernels = reference.long_filters(parameters, model.config, "backbone.layers.1.mixer.filter_fn", 300)
        kernels[:, :, 0] += parameters["backbone.layers.1.mixer.filter_fn.bias"]
        with Captures(model.backbone, ["layers.0", "layers.1", "ln_f", "layers.1.mixer.filter_fn"]) as captures:
            model(ids)
    seen = captures.checked()
    close(seen["layers.0, input"][0], states[0])
    close(seen["layers.1, input"][0], states[1])
    close(seen["layers.0, output"][0], states[1])
    close(seen["ln_f, output"][0], states[2])
    close(seen["layers.1.mixer.filter_fn, output"], kernels)


@pytest.mark.parametrize("side", ["left", "right"])
def test_hooks_on_padded_batches(side):
    """Each row is where the caller put it, and as if it were alone."""
    model, length = model_of(), 400
    counts = [400, 391, 150]
    ids = torch.full((3, length), 4)
    for row, count in enumerate(counts):
        ids[row, length - count :] = torch.randint(7, 12, (count,))
        if side == "right":
            ids[row] = ids[row].roll(count)
    mask = (ids != 4).long()
    for _ in cases(model, [1]):
        with Captures(model.backbone, IN_LAYOUT) as captures:
            model(ids, mask)
        for row in range(3):
            alone, _ = expected_captures(model, ids[row : row + 1, mask[row] == 1])
            for name, value in captures.checked().items():
                close(value[row, mask[row] == 1], alone[name][0], name)


def test_hooks_in_float32():
    model = model_of()
    ids = torch.randint(7, 12, (1, 1000))
    expected, _ = expected_captures(model, ids)
    model.float()
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), Captures(model.backbone, SITES) as captures:
            model(ids)
        for name, value in captures.checked().items():
            assert value.dtype != torch.float64
            close(value, expected[name], name, 1e-4)


@lengths_of_inputs
def test_hooks_that_replace_values(lengths):
    """Ablation: the same as zero weights."""
    model = model_of()
    for path in ("layers.0.mixer.out_proj", "layers.1.mixer.filter_fn.implicit_filter.6"):
        ablated = model_of()
        for parameter in ablated.backbone.get_submodule(path).parameters():
            nn.init.zeros_(parameter)
        expected = {length: ablated(input_of(length), plan=TRANSPARENT)[0] for length in lengths}
        handle = model.backbone.get_submodule(path).register_forward_hook(lambda module, args, output: output * 0)
        for ids in cases(model, lengths):
            close(model(ids)[0], expected[ids.shape[1]], path)
        handle.remove()


def assert_computes(model, baked, lengths):
    with torch.no_grad():
        expected = {length: baked(input_of(length), plan=TRANSPARENT)[0] for length in lengths}
    for ids in cases(model, lengths):
        close(model(ids)[0], expected[ids.shape[1]], f"{ids.shape[1]} positions, {model.config.memory}")


@lengths_of_inputs
@pytest.mark.parametrize("kind", REWRITES)
def test_rewritten_weights(kind, lengths):
    """The same as a model that has those weights, before and after they are written into it."""
    rewrite, remove = REWRITES[kind]
    for path in REWRITTEN:
        model, baked = model_of(), model_of()
        ids = torch.randint(7, 12, (1, lengths[-1]))
        with torch.no_grad():
            model(ids)  # spectra may be kept from now on
            before = model(ids, plan=TRANSPARENT)[0]
        module = model.backbone.get_submodule(path)
        if kind == "weight_norm":  # which changes no weight by itself
            rewrite(module).parametrizations.weight.original0.data *= 1.5
        else:
            rewrite(module)
        if kind == "weight_norm by a hook":
            module.weight_g.data *= 1.5
        assert_named(model, ids, path)
        with torch.no_grad():
            model(ids)  # hooks make the weight
            baked.backbone.get_submodule(path).weight.copy_(module.weight)
            assert (baked(ids)[0] - before).abs().max() > 1e-3
        assert_computes(model, baked, lengths)
        remove(module)
        assert model.plan(ids).path != "transparent"
        assert_computes(model, baked, lengths)


@lengths_of_inputs
@pytest.mark.parametrize("target", ["in_proj", "fc1", r".*implicit_filter\.[06]"])
def test_lora(target, lengths):
    model, baked = model_of(), model_of()
    ids = torch.randint(7, 12, (1, lengths[-1]))
    targets = target if "*" in target else [target]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert len(layers) in (2, 4)
    with torch.no_grad():
        for name, layer in layers.items():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            baked.get_submodule(name).weight += layer.scaling["default"] * b @ a
    assert_named(model, ids, next(iter(layers)).removeprefix("backbone."))
    assert_computes(model, baked, lengths)
    merged = adapted.merge_and_unload()
    assert merged.plan(ids).path != "transparent"
    assert_computes(merged, baked, lengths)


def test_hooks_of_all_modules():
    model = model_of()
    for ids in cases(model, [300]):
        expected, output = expected_captures(model, ids)
        seen = []

        def keep(module, args, output, seen=seen):
            if isinstance(output, torch.Tensor):
                seen.append((module, output, output.clone()))

        handle = global_hooks.register_module_forward_hook(keep)
        try:
            assert_named(model, ids, "on all modules")
            found = model(ids)[0]
        finally:
            handle.remove()
        close(found, output)
        assert all(torch.equal(now, then) for _, now, then in seen)
        of_module = {module: value for module, value, _ in seen}
        for site in set(SITES) - {"layers.1.mixer.filter_fn.implicit_filter.1"}:  # which is called several times
            close(of_module[model.backbone.get_submodule(site)], expected[f"{site}, output"], site)
        assert model.plan(ids).path != "transparent"


def test_dispatch_modes():
    """They count the same whatever the setting of memory, and what a graph without one has."""
    model = model_of(d_model=16)
    ids = torch.randint(7, 12, (1, 300))
    for gradients in (False, True):
        counts = set()
        for memory in MEMORY:
            model.config.memory = memory
            with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter:
                assert_named(model, ids, "TorchDispatchMode")
                model(ids)
            counts.add(counter.get_total_flops())
        (count,) = counts
        products = sum(m.weight.numel() for n, m in model.named_modules() if type(m) is nn.Linear)
        assert count >= 2 * 300 * products


@torch.no_grad()
def test_monte_carlo_dropout():
    """Dropout alone in training mode."""
    model = model_of(resid_dropout=0.3)
    ids = torch.randint(7, 12, (1, 400))
    expected = model(ids, plan=TRANSPARENT)[0]
    for memory in MEMORY:
        model.config.memory = memory
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.train()
        first, second = model(ids)[0], model(ids)[0]
        assert not torch.allclose(first, second) and not torch.allclose(first, expected)
        close(model.eval()(ids)[0], expected)


@pytest.mark.parametrize("path", ["layers.1.mlp.fc1", "layers.0.mixer.in_proj", *FILTER_LAYERS])
def test_another_forward(path):
    """A `forward` of an instance, and a module of a subclass."""
    ablated = model_of()
    for parameter in ablated.backbone.get_submodule(path).parameters():
        nn.init.zeros_(parameter)
    on_instance, of_subclass = model_of(), model_of()
    module = on_instance.backbone.get_submodule(path)
    module.forward = lambda *args, forward=module.forward, **kwargs: forward(*args, **kwargs) * 0
    swapped = of_subclass.backbone.get_submodule(path)

    class Ablated(type(swapped)):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs) * 0

    swapped.__class__ = Ablated
    for model in (on_instance, of_subclass):
        assert_named(model, torch.ones(1, 300, dtype=torch.long), path)
        assert_computes(model, ablated, [17, 300])


@lengths_of_inputs
def test_backward_hooks(lengths):
    """They see the gradients of outputs."""
    model = model_of()
    sites = ["layers.0", "layers.1.norm1", "layers.0.mixer.in_proj", "layers.1.mlp.fc1", FILTER_LAYERS[-1]]
    for ids in cases(model, lengths):
        if not torch.is_grad_enabled():
            continue
        outputs, gradients = {}, {}
        modules = [model.backbone.get_submodule(site) for site in sites]
        handles = [m.register_forward_hook(lambda m, args, out, seen=outputs: seen.update({m: out})) for m in modules]
        loss = model(ids, plan=TRANSPARENT)[0].square().sum()
        expected = torch.autograd.grad(loss, [outputs[module] for module in modules])
        for handle in handles:
            handle.remove()
        for site, module, value in zip(sites, modules, expected):

            def keep(module, inputs, outputs, site=site, gradients=gradients):
                gradients[site] = outputs[0].clone()

            handle = module.register_full_backward_hook(keep)
            assert_named(model, ids, f"a backward hook on {site}")
            model(ids)[0].square().sum().backward()
            handle.remove()
            close(gradients[site], value, site)
        assert model.plan(ids).path != "transparent"


@pytest.mark.parametrize("length", [300, pytest.param(16_384, marks=pytest.mark.slow)])
def test_hooks_on_parameters(length):
    """They run once a backward pass, on the whole gradient."""
    model = model_of()
    ids = torch.randint(7, 12, (1, length))
    names = [f"mixer.{name}" for name in ("in_proj.weight", "short_filter.bias", "filter_fn.implicit_filter.6.weight")]
    parameters = [model.backbone.layers[0].get_parameter(name) for name in names]
    expected = torch.autograd.grad(model(ids, plan=TRANSPARENT)[0].square().sum(), parameters)
    calls = []
    for parameter in parameters:
        parameter.register_hook(lambda gradient: calls.append(gradient.clone()) or 2 * gradient)
    for memory in MEMORY:
        model.config.memory = memory
        model.zero_grad()
        calls.clear()
        model(ids)[0].square().sum().backward()
        assert len(calls) == len(parameters), memory
        for name, parameter, gradient in zip(names, parameters, expected):
            close(parameter.grad, 2 * gradient, f"{name}, {memory}")


@pytest.mark.slow
@pytest.mark.parametrize("d_model, n_layer", [(128, 2), (256, 8)])
@torch.no_grad()
def test_detection_costs_next_to_nothing(d_model, n_layer):
    model = model_of(d_model=d_model, n_layer=n_layer, filter_order=64).float()
    ids = torch.randint(7, 12, (1, 128))

    def fastest(function, count):  # other programs only add time
        times = []
        for _ in range(count):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return min(times)

    model(ids)
    detection = fastest(lambda: find_observer(model.backbone, ids, MODULES), 300)
    forward = fastest(lambda: model(ids), 60)
    print(f"d_model {d_model}, {n_layer} layers: {1e6 * detection:.0f} us of {1e6 * forward:.0f} us")
    assert detection < 0.02 * forward  # 0.6 to 1 % on a quiet machine; timings vary
