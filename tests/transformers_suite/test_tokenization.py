import unittest

from transformers_tests.test_tokenization_common import TokenizerTesterMixin
from transformers_tests.test_tokenizers_backend_mixin import TokenizersBackendTesterMixin

from hyenadna_hf import HyenaDNATokenizer


class HyenaDNATokenizationTest(TokenizerTesterMixin, TokenizersBackendTesterMixin, unittest.TestCase):
    tokenizer_class = rust_tokenizer_class = HyenaDNATokenizer
    integration_test_input_string = "ACGTN acgun\n[MASK]R"
    integration_expected_tokens = [*"ACGTN", "[UNK]", *"ACGTN", "[UNK]", "[MASK]", "N"]
    integration_expected_token_ids = [7, 8, 9, 10, 11, 6, 7, 8, 9, 10, 11, 6, 3, 11]
    integration_expected_decoded_text = "ACGTN[UNK]ACGTN[UNK][MASK]N"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        HyenaDNATokenizer().save_pretrained(cls.tmpdirname)
        cls.from_pretrained_id = [cls.tmpdirname]
        cls.tokenizers_list = [(HyenaDNATokenizer, cls.tmpdirname, {})]

    def get_input_output_texts(self, tokenizer):
        return "ACGTN", "ACGTN"
