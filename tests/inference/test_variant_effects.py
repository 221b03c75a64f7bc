import copy

import numpy as np
import pytest
import torch
from genomes import VARIANT_CONTIG as CONTIG
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from scipy.spatial.distance import jensenshannon

from hyenadna_hf import HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.variant_effects import SCORES, score_variant_effects
from hyenadna_hf.inference.variants import Variant, score_variants

TOKENIZER = HyenaDNATokenizer()
ALLELE = st.text("ACGT", min_size=1, max_size=9)


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("fasta") / "reference.fa"
    path.write_text(f">chr20\n{CONTIG}\n>chr21\nGATTACA\n")
    return Fasta(path)


def pair_on_a_strand(contig, start, reference, alternate, window):
    """Both haplotypes from the window's first base on, and the bases before the alleles."""
    left = max(0, min(start + len(reference) // 2 - window // 2, len(contig) - window))
    after = contig[start + len(reference) :]
    return [(contig[left:start] + allele + after)[:window] for allele in (reference, alternate)], start - left


@torch.inference_mode()
def by_model_calls(model, contig, start, reference, alternate, window, bos):
    """Divergence and distance on a strand: one call for each haplotype, and scipy."""
    haplotypes, before = pair_on_a_strand(contig, start, reference, alternate, window)
    downstream, embeddings = [], []
    for haplotype, allele in zip(haplotypes, (reference, alternate)):
        ids = TOKENIZER(TOKENIZER.bos_token * bos + haplotype, add_special_tokens=False, return_tensors="pt").input_ids
        output = model(ids, output_hidden_states=True)
        probabilities = output.logits[0, :, TOKENIZER.convert_tokens_to_ids(list("ACGT"))].double().softmax(-1)
        first = before + len(allele)
        downstream.append([*zip(haplotype[first:], probabilities[first - 1 + bos :])])
        embeddings.append(output.hidden_states[-1][0, bos:].double().mean(0))
    divergences = []
    for (base, p), (same, q) in zip(*downstream):
        assert base == same
        if base.upper() in "ACGT":
            divergences.append(jensenshannon(p, q, base=2) ** 2)
    distance = torch.linalg.vector_norm(embeddings[0] - embeddings[1]).item()
    return np.mean(divergences) if divergences else None, distance


@settings(max_examples=50)
@given(st.integers(0, len(CONTIG) - 1), st.integers(1, 8), ALLELE, st.booleans())
def test_scores_are_those_of_model_calls(model, fasta, start, length, alternate, bos):
    """SNVs, deletions, insertions and MNVs, at the ends of a contig and beside N; tolerances are those of float32."""
    reference = CONTIG[start : start + length]
    window = 24 + len(reference) % 2  # which can be centred on both strands
    variant = Variant("20", start, reference, alternate)
    (effect,) = score_variant_effects(model, TOKENIZER, [variant], fasta, SCORES, window, bos)
    (ratio,) = score_variants(model, TOKENIZER, [variant], fasta, window, bos)
    assert effect.variant == variant
    if set(reference.upper()) - set("ACGT"):
        assert effect.reason == ratio.reason == "ambiguous_allele" and not effect.scores
        return
    assert effect.reason is None  # there are always embeddings
    assert effect.scores["llr"] == (ratio.llr if ratio.llr is None else pytest.approx(ratio.llr, abs=1e-3))
    assert effect.scores["abs_llr"] == (None if ratio.llr is None else abs(effect.scores["llr"]))
    mirrored = len(CONTIG) - start - len(reference)
    others = (reverse_complement(text) for text in (CONTIG, reference, alternate))
    strands = [
        by_model_calls(model, CONTIG, start, reference, alternate, window, bos),
        by_model_calls(model, next(others), mirrored, *others, window, bos),
    ]
    divergences, distances = ([value for value in values if value is not None] for values in zip(*strands))
    expected = np.mean(divergences) if divergences else None
    assert effect.scores["jsd"] == (expected if expected is None else pytest.approx(expected, abs=1e-5))
    assert effect.scores["embedding_distance"] == pytest.approx(np.mean(distances), abs=1e-4)


def test_no_difference_is_no_effect(model, fasta):
    (effect,) = score_variant_effects(
        model, TOKENIZER, [Variant("20", 30, CONTIG[30:33], CONTIG[30:33])], fasta, window=40
    )
    assert effect.scores == pytest.approx(dict.fromkeys(SCORES, 0.0), abs=1e-6)


def test_many_variants_at_once(model, fasta):
    """In batches, with alternates that share a reference, as each alone; only the scores that are asked for."""
    others = ["ACGT".replace(CONTIG[at].upper(), "") for at in range(40, 60)]
    variants = [Variant("20", at, CONTIG[at], base) for at, bases in zip(range(40, 60), others) for base in bases]
    variants.insert(7, Variant("20", 45, "N", "A"))
    options = {"scores": ["jsd", "embedding_distance"], "window": 32}
    found = list(score_variant_effects(model, TOKENIZER, variants, fasta, max_tokens=100, **options))
    assert [effect.variant for effect in found] == variants and found[7].reason == "ambiguous_allele"
    for effect in found[:7] + found[8:]:
        (alone,) = score_variant_effects(model, TOKENIZER, [effect.variant], fasta, **options)
        assert effect.scores == pytest.approx(alone.scores, abs=1e-6) and list(effect.scores) == options["scores"]
        assert 0 < effect.scores["jsd"] < 1 and effect.scores["embedding_distance"] > 0


def test_nothing_after_the_alleles(model, fasta):
    """On the forward strand of a contig's last base there is no base to compare; on the other there is."""
    end = len(CONTIG) - 1
    variant = Variant("20", end, CONTIG[end], "A" if CONTIG[end] != "A" else "C")
    (effect,) = score_variant_effects(model, TOKENIZER, [variant], fasta, ["jsd"], 24)
    assert effect.scores["jsd"] > 0 and effect.reason is None
    (effect,) = score_variant_effects(model, TOKENIZER, [Variant("chr21", 0, "GATTACA", "C")], fasta, ["jsd"], 24)
    assert effect.scores == {"jsd": None} and effect.reason == "nothing_to_compare"


def test_adapters(model, fasta):
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", target_modules=["in_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    variant = Variant("20", 40, CONTIG[40], "A" if CONTIG[40].upper() != "A" else "C")
    arguments = (TOKENIZER, [variant], fasta, SCORES, 24)
    (effect,), (plain,) = (score_variant_effects(one, *arguments) for one in (adapted, model))
    (merged,) = score_variant_effects(adapted.merge_and_unload(), *arguments)
    assert effect.scores == pytest.approx(merged.scores, abs=1e-4)
    assert abs(effect.scores["llr"] - plain.scores["llr"]) > 1e-3


def test_bad_arguments_are_refused_at_once(model, fasta):
    with pytest.raises(InputError, match=r"scores=\['lr'\]: give one or more of llr, abs_llr, jsd"):
        score_variant_effects(model, TOKENIZER, [], fasta, ["lr"])
    with pytest.raises(InputError, match="window=41: give 2 to 40 bases"):
        score_variant_effects(model, TOKENIZER, [], fasta, window=41)
    prompt = get_peft_model(copy.deepcopy(model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(InputError, match="the model has a soft prompt"):
        score_variant_effects(prompt, TOKENIZER, [], fasta)
