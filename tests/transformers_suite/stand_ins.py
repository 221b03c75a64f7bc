"""Stands in for what transformers' tests import and its source distribution leaves out."""

import json
from types import SimpleNamespace

import torch
from transformers import pipeline


class ExportTesterMixin:
    """Nothing: export is tested in tests/model/test_export.py."""


class GenerationTesterMixin:
    """
    Generation as flash-linear-attention tests it: a padded batch that is read in pieces, and then token by token, gives
    what each row gives alone, at once and without a cache.
    """

    def test_generation_in_pieces_is_the_whole(self):
        lengths, pieces = (29, 20, 1), (7, 11, *[1] * 11)
        for model_class in self.all_generative_model_classes:
            model = model_class(self.model_tester.get_config()).eval()
            ids = torch.randint(7, 12, (len(lengths), max(lengths)))
            mask = torch.stack([torch.arange(max(lengths)) >= max(lengths) - length for length in lengths]).long()
            found, cache, seen = [], None, 0
            with torch.no_grad():
                for piece in pieces:
                    seen += piece
                    out = model(ids[:, seen - piece : seen], mask[:, :seen], past_key_values=cache, use_cache=True)
                    found.append(out.logits)
                    cache = out.past_key_values
                found = torch.cat(found, dim=1)
                for row, length in enumerate(lengths):
                    alone = model(ids[row : row + 1, -length:]).logits[0]
                    torch.testing.assert_close(found[row, -length:], alone, rtol=0, atol=1e-5)

    def test_generation_is_a_forward_for_each_token(self):
        for model_class in self.all_generative_model_classes:
            model = model_class(self.model_tester.get_config()).eval()
            ids = torch.randint(7, 12, (3, 20))
            mask = (torch.arange(20) >= torch.tensor([[0], [5], [19]])).long()
            generated = model.generate(
                ids, attention_mask=mask, max_new_tokens=20, do_sample=False, eos_token_id=None, suppress_tokens=[]
            )
            for _ in range(20):
                with torch.no_grad():
                    following = model(ids, mask).logits[:, -1:].argmax(-1)
                ids, mask = torch.cat([ids, following], dim=1), torch.nn.functional.pad(mask, (0, 1), value=1)
            self.assertTrue(torch.equal(generated, ids))


class PipelineTests:
    """What a task is given, and a check of what comes back for each sequence."""

    sequences = ("ACGTTGCATTAGC", "GGCATTACG", "N")

    def get_test_pipeline(self, model, tokenizer=None, dtype="float32", **processors):
        model = model.to(getattr(torch, dtype))
        return pipeline(self.task, model=model, tokenizer=tokenizer, **self.options), list(self.sequences)

    def run_pipeline_test(self, pipe, examples):
        for batch_size in (1, 2):
            for sequence, out in zip(examples, pipe(examples, batch_size=batch_size), strict=True):
                self.check(sequence, out, pipe.model.config)

    options = {}


class FeatureExtractionPipelineTests(PipelineTests):
    task = "feature-extraction"

    def check(self, sequence, out, config):
        assert torch.tensor(out).shape[::2] == (1, config.d_model)


class TextClassificationPipelineTests(PipelineTests):
    task = "text-classification"

    def check(self, sequence, out, config):
        assert out["label"] in config.label2id and 0 < out["score"] < 1


class TokenClassificationPipelineTests(PipelineTests):
    task = "token-classification"
    options = {"ignore_labels": []}

    def check(self, sequence, out, config):
        assert "".join(found["word"] for found in out) == sequence
        assert all(found["entity"] in config.label2id for found in out)


class TextGenerationPipelineTests(PipelineTests):
    task = "text-generation"
    options = {"max_new_tokens": 5, "pad_token_id": 4}

    def check(self, sequence, out, config):
        made = out[0]["generated_text"]
        assert made.startswith(sequence) and set(made) <= set("ACGTN")


class FillMaskPipelineTests(PipelineTests):
    task = "fill-mask"
    sequences = ("ACG[MASK]TGCATTAGC", "[MASK]GCATTACG", "N[MASK]")

    def check(self, sequence, out, config):
        assert len(out) == 5 and all(0 < found["score"] < 1 for found in out)
        assert all(found["token"] < config.vocab_size for found in out)


PIPELINE_TESTS = {
    tests.task: {"test": f"{__name__}.{tests.__name__}"}
    for tests in (
        FeatureExtractionPipelineTests,
        FillMaskPipelineTests,
        TextClassificationPipelineTests,
        TextGenerationPipelineTests,
        TokenClassificationPipelineTests,
    )
}

# Arguments of every configuration, with values that are not their defaults.
CONFIG_ARGUMENTS = {
    "architectures": ["HyenaDNAModel"],
    "chunk_size_feed_forward": 5,
    "dtype": "float16",
    "id2label": {0: "label"},
    "is_encoder_decoder": True,
    "label2id": {"label": "0"},
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
}

TASKS = ("CausalLM", "MaskedLM", "SequenceClassification", "TokenClassification")
HEADS = ("HyenaDNAModel", *(f"HyenaDNAFor{task}" for task in TASKS))

# By their paths beside the package.
FILES = {
    "transformers_tests/__init__.py": "",
    "transformers_tests/fixtures/sample_text.txt": "ACGTN\n",
    "src/transformers/__init__.py": "",  # imported for its side effects, under the name of the one that is there
    "reports/tiny_model_summary.json": json.dumps(
        {head: {"tokenizer_classes": ["HyenaDNATokenizer"], "processor_classes": []} for head in HEADS}
    ),
}

# By their names in the package.
MODULES = {
    "exporters.test_export": SimpleNamespace(ExportTesterMixin=ExportTesterMixin),
    "generation.test_utils": SimpleNamespace(GenerationTesterMixin=GenerationTesterMixin),
    "utils.test_configuration_utils": SimpleNamespace(config_common_kwargs=CONFIG_ARGUMENTS),
}
