"""Sharded sequences against the same model by itself, over many lengths, masks and configurations."""

import os
import random
from functools import partial

import torch
import torch.distributed as dist
from reference import randomise
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
)
from hyenadna_hf.distributed import average_gradients, context_parallel

RANKS = int(os.environ["WORLD_SIZE"])
HEADS = (HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNAForTokenClassification)
SMALL = {"d_model": 12, "n_layer": 2, "max_seq_len": 70, "filter_order": 16, "embed_dropout": 0.0, "num_labels": 3}


def build(head=HyenaDNAForCausalLM, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return randomise(head(HyenaDNAConfig(**{**SMALL, **options}))).to(dtype)


def batch(head, rows, length, mask, choose=None):
    """Random rows, the same on each rank; `mask` is None or where holes are: "left", "right", "anywhere"."""
    choose = choose or random.Random(1)
    ids = torch.tensor([[choose.randrange(7, 12) for _ in range(length)] for _ in range(rows)])
    found = {"input_ids": ids}
    if mask is not None:
        real = torch.tensor([[choose.random() < 0.6 for _ in range(length)] for _ in range(rows)])
        if mask != "anywhere":
            real = real.sort(1, descending=mask == "right").values
        real[:, length // 2] |= ~real.any(1)
        found["attention_mask"] = real.long()
    if head is HyenaDNAForCausalLM:
        found["labels"] = ids.masked_fill(torch.tensor([[choose.random() < 0.2] * length for _ in range(rows)]), -100)
    elif head is HyenaDNAForSequenceClassification:
        found["labels"] = torch.tensor([choose.randrange(3) for _ in range(rows)])
    elif head is HyenaDNAForTokenClassification:
        found["labels"] = torch.tensor([[choose.randrange(3) for _ in range(length)] for _ in range(rows)])
    return found


def step(model, inputs):
    """Outputs, the loss and the gradients on this rank."""
    model.zero_grad()
    outputs = model(**inputs)
    outputs.loss.backward()
    return outputs


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def same(found, expected, tolerance, what):
    """Within `tolerance` of the largest value, if that is above 1. (The mean of no losses is NaN, in both.)"""
    for name, one in expected.items():
        atol = tolerance * max(1.0, float(one.detach().abs().max()))
        try:
            torch.testing.assert_close(found[name], one, rtol=0, atol=atol, equal_nan=True)
        except AssertionError as error:
            raise AssertionError(f"{what}, {name}: {error}") from None


def compare(head, mesh, inputs, tolerance=1e-9, **options):
    dtype = torch.float64 if tolerance < 1e-6 else torch.float32
    model, what = build(head, dtype, **options), f"{head.__name__} {options} {inputs}"
    whole = step(model, inputs)
    expected = gradients(model)
    with context_parallel(model, mesh):
        sharded = step(model, inputs)
        average_gradients(model, mesh)
    same(gradients(model), expected, tolerance, what)
    # transformers computes losses in float32
    same({"loss": sharded.loss}, {"loss": whole.loss}, max(tolerance, 1e-6), what)
    same({"logits": sharded.logits}, {"logits": whole.logits}, tolerance, what)


def check_any_length_and_mask(mesh):
    choose = random.Random(7)
    for case in range(18):
        head = HEADS[case % 3]
        length = choose.choice([1, 2, 3, 5, RANKS, 4 * RANKS, choose.randint(6, 70), 70])
        inputs = batch(head, choose.randint(1, 3), length, choose.choice([None, "left", "right", "anywhere"]), choose)
        options = {
            "hyena_order": choose.choice([2, 2, 3, 4]),
            "short_filter_order": choose.choice([1, 3, 3, 4]),
            "classifier_pooling": choose.choice(["mean", "last", "first", "max"]),
            "compat_padding": choose.random() < 0.2,
            "use_bias": choose.random() < 0.8,
            "trained_positions": choose.random() < 0.3,
        }
        compare(head, mesh, inputs, choose.choice([1e-9, 1e-4]), **options)


def check_other_ways_to_call(mesh):
    """Without labels, as a tuple, by inputs_embeds, with hidden states, without gradient, in checkpoints."""
    model = build().eval()
    inputs = batch(HyenaDNAForCausalLM, 2, 33, "left")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    embeds = model.get_input_embeddings()(ids).detach()
    calls = {
        "positional": lambda: model(ids, mask).logits,
        "tuple": lambda: model(ids, mask, return_dict=False)[0],
        "embeds": lambda: model(inputs_embeds=embeds, attention_mask=mask).logits,
        "hidden": lambda: torch.cat(model(ids, mask, output_hidden_states=True).hidden_states),
        "base": lambda: model.hyena(ids, mask).last_hidden_state,
    }
    for name, call in calls.items():
        core = model.hyena if name == "base" else model
        expected = call()
        with context_parallel(core, mesh), torch.no_grad():
            same({name: call()}, {name: expected}, 1e-9, "call")
    assert not model._forward_pre_hooks and not model._forward_hooks
    model.train()
    step(model, inputs)
    expected = gradients(model)
    for layer in model.hyena.backbone.layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    with context_parallel(model, mesh):
        step(model, inputs)
        average_gradients(model, mesh)
    same(gradients(model), expected, 1e-9, "gradient checkpointing")


def check_lora(mesh):
    """An adapter around the model and in its operators, the filter's layers among them."""
    from peft import LoraConfig, get_peft_model

    targets = ["in_proj", "out_proj", "implicit_filter.6"]
    model = get_peft_model(build(), LoraConfig(target_modules=targets, init_lora_weights=False))
    inputs = batch(HyenaDNAForCausalLM, 2, 33, "left")

    def lora_gradients():
        step(model, inputs)
        average_gradients(model, mesh)
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}

    expected = lora_gradients()
    assert len(expected) == 12
    with context_parallel(model, mesh):
        same(lora_gradients(), expected, 1e-9, "LoRA")


def check_stretches(mesh):
    """With gather_outputs=False the stretches, one after the other, are the packed rows."""
    model = build().eval()
    ids = batch(HyenaDNAForCausalLM, 2, 4 * RANKS + 1, None)["input_ids"]
    with context_parallel(model, mesh, gather_outputs=False):
        mine = model(ids).logits.detach()
    assert mine.shape == (2, 5, 16), mine.shape
    found = [torch.empty_like(mine) for _ in range(RANKS)]
    dist.all_gather(found, mine, group=mesh.get_group())
    same({"": torch.cat(found, 1)[:, : ids.shape[1]]}, {"": model(ids).logits}, 1e-9, "stretches")


def check_long(mesh):
    """Where the model by itself computes in pieces."""
    for length, grad in ((20_001, True), (4_099, False)):
        model = build(max_seq_len=20_001, n_layer=1).train(grad)
        inputs = batch(HyenaDNAForCausalLM, 1, length, None)
        with torch.set_grad_enabled(grad):
            expected = model(**inputs).logits
            with context_parallel(model, mesh):
                same({"": model(**inputs).logits}, {"": expected}, 1e-9, "long")


def check_refusals(mesh):
    model = build().eval()
    ids = batch(HyenaDNAForCausalLM, 1, 20, None)["input_ids"]

    def refused(call, *words):
        try:
            call()
        except ValueError as error:
            assert all(word in str(error) for word in words), error
        else:
            raise AssertionError(f"not refused: {words}")

    with context_parallel(model, mesh):
        refused(lambda: model(ids, use_cache=True), "use_cache", "nor generation")
        refused(lambda: model.generate(ids, max_new_tokens=2), "nor generation")
        refused(lambda: model(ids + mesh.get_local_rank() % 2), "different inputs")
        refused(lambda: model(ids.repeat(1, 4)), "max_seq_len")
        refused(lambda: model(ids, attention_mask=ids[:, 1:]), "attention_mask")
        refused(model, "input_ids")
    refused(lambda: context_parallel(build(d_model=RANKS + 1), mesh).__enter__(), "d_model", str(RANKS))
    refused(lambda: context_parallel(torch.nn.Linear(1, 1), mesh).__enter__(), "Linear")


def check_beside_data_parallelism():
    """Two groups with a batch each, against one process with both: DDP over all ranks, and FSDP2 over the mesh."""
    mesh = init_device_mesh("cpu", (2, RANKS // 2), mesh_dim_names=("data", "context"))
    row = mesh["data"].get_local_rank()
    for head in HEADS:
        inputs = batch(head, 2, 45, None if head is HyenaDNAForCausalLM else "left", random.Random(3))
        if head is HyenaDNAForTokenClassification:  # so that a mean over all tokens is the mean of the groups' means
            inputs["attention_mask"][:] = inputs["attention_mask"][0]
        inputs["labels"] = inputs["labels"].clamp(min=0)
        mine = {name: values[row : row + 1] for name, values in inputs.items()}
        model = build(head)
        step(model, inputs)
        expected = gradients(model)
        wrapped = DistributedDataParallel(model)
        with context_parallel(wrapped, mesh["context"]):
            step(wrapped, mine)
        same(gradients(model), expected, 1e-7, f"DDP, {head.__name__}")

        model = build(head)
        for layer in model.hyena.backbone.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        with context_parallel(model, mesh["context"]):
            step(model, mine)
        found = {name: gradient.full_tensor() for name, gradient in gradients(model).items()}
        same(found, expected, 1e-7, f"FSDP2, {head.__name__}")


def main():
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("context",))
    check_any_length_and_mask(mesh)
    check_other_ways_to_call(mesh)
    check_stretches(mesh)
    if RANKS == 2:
        check_long(mesh)
        check_lora(mesh)
    check_refusals(mesh)
    check_beside_data_parallelism()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
