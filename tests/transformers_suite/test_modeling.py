import shutil
import unittest
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.testing_utils import torch_device
from transformers_suite.stand_ins import PIPELINE_TESTS, GenerationTesterMixin
from transformers_tests import test_pipeline_mixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask
from transformers_tests.test_pipeline_mixin import PipelineTesterMixin

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNAModel,
    HyenaDNATokenizer,
)

# The tests look up by name what labels a class takes.
modeling_auto.MODEL_MAPPING_NAMES["hyenadna"] = "HyenaDNAModel"
modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["hyenadna"] = "HyenaDNAForCausalLM"
modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES["hyenadna"] = "HyenaDNAForMaskedLM"
modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["hyenadna"] = "HyenaDNAForSequenceClassification"
modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES["hyenadna"] = "HyenaDNAForTokenClassification"


class HyenaDNAModelTester:
    """Sizes, and inputs: what transformers' tests ask for by these names."""

    batch_size = 5
    seq_length = 11
    is_training = True
    num_hidden_layers = 2
    hidden_size = 16

    def __init__(self, bidirectional=False):
        self.bidirectional = bidirectional

    def get_config(self):
        return HyenaDNAConfig(
            d_model=self.hidden_size, n_layer=self.num_hidden_layers, max_seq_len=64, filter_order=8, embed_dropout=0.0,
            bidirectional=self.bidirectional,
        )  # fmt: skip

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        return self.get_config(), {"input_ids": ids_tensor(shape, 12), "attention_mask": random_attention_mask(shape)}


class HyenaDNATests(ModelTesterMixin, PipelineTesterMixin):
    """Tests of the heads of a causal or a bidirectional configuration."""

    has_attentions = False
    test_can_init_all_missing_weights_before_2023 = True

    @classmethod
    def setUpClass(cls):
        models = Path(test_pipeline_mixin.TRANSFORMERS_TINY_MODEL_PATH, HyenaDNAConfig.model_type)
        for model_class in cls.all_model_classes:
            config = HyenaDNAModelTester(cls.bidirectional).get_config()
            model_class(config).save_pretrained(models / model_class.__name__)
            HyenaDNATokenizer().save_pretrained(models / model_class.__name__)
        cls.addClassCleanup(shutil.rmtree, models)
        cls.enterClassContext(patch.object(transformers, "HyenaDNATokenizer", HyenaDNATokenizer, create=True))
        cls.enterClassContext(patch.dict(test_pipeline_mixin.pipeline_test_mapping, PIPELINE_TESTS))

    def setUp(self):
        self.model_tester = HyenaDNAModelTester(self.bidirectional)

    def test_config(self):
        ConfigTester(self, config_class=HyenaDNAConfig, d_model=16).run_common_tests()

    def test_problem_types_of_positions(self):
        """transformers tests those of sequences; here, in the same way, those of positions."""
        for problem_type, dtype, num_labels in (
            ("multi_label_classification", torch.float, 2),
            ("single_label_classification", torch.long, 2),
            ("regression", torch.float, 1),
        ):
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            config.problem_type, config.num_labels = problem_type, num_labels
            model = HyenaDNAForTokenClassification(config).to(torch_device).train()
            shape = inputs["input_ids"].shape
            labels = torch.ones(shape if dtype == torch.long else (*shape, num_labels), dtype=dtype)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # such as one on broadcast labels
                loss = model(**{**inputs, "labels": labels.to(torch_device)}).loss
            loss.backward()
            self.assertTrue(torch.isfinite(loss))

    def _prepare_config_and_inputs_for_retain_grad_hidden_states_attentions(self):
        # With a mask, hidden states are copies with the positions put back.
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        return config, {"input_ids": inputs["input_ids"]}


class HyenaDNAModelTest(HyenaDNATests, GenerationTesterMixin, unittest.TestCase):
    bidirectional = False
    all_model_classes = (
        HyenaDNAModel,
        HyenaDNAForCausalLM,
        HyenaDNAForSequenceClassification,
        HyenaDNAForTokenClassification,
    )
    pipeline_model_mapping = {
        "feature-extraction": HyenaDNAModel,
        "text-classification": HyenaDNAForSequenceClassification,
        "text-generation": HyenaDNAForCausalLM,
        "token-classification": HyenaDNAForTokenClassification,
    }


class HyenaDNABidirectionalModelTest(HyenaDNATests, unittest.TestCase):
    bidirectional = True
    all_model_classes = (
        HyenaDNAModel,
        HyenaDNAForMaskedLM,
        HyenaDNAForSequenceClassification,
        HyenaDNAForTokenClassification,
    )
    pipeline_model_mapping = {
        "feature-extraction": HyenaDNAModel,
        "fill-mask": HyenaDNAForMaskedLM,
        "text-classification": HyenaDNAForSequenceClassification,
        "token-classification": HyenaDNAForTokenClassification,
    }
