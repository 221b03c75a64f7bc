import json

import pytest

from hyenadna_hf import HyenaDNAConfig


def test_vocab_size_is_the_number_of_rows_and_survives_a_round_trip(tmp_path):
    config = HyenaDNAConfig(vocab_size=12)
    assert config.vocab_size == 16
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["vocab_size"] == 16 and stored["num_attention_heads"] == 1
    assert HyenaDNAConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_names_of_transformers_work_too():
    config = HyenaDNAConfig(hidden_size=24, num_hidden_layers=3, max_position_embeddings=99)
    assert (config.d_model, config.n_layer, config.max_seq_len, config.d_inner) == (24, 3, 99, 96)
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (24, 3, 96)


def test_published_configs_load(shared):
    for file in sorted((shared / "reference" / "hub_files").glob("*/config.json")):
        config = HyenaDNAConfig.from_pretrained(file.parent)
        published = json.loads(file.read_text())
        for name in published.keys() - {"_name_or_path", "auto_map", "torch_dtype", "transformers_version"}:
            if name != "hyena_filter_dropout":
                assert getattr(config, name) == (16 if name == "vocab_size" else published[name]), name
        assert config.auto_map["AutoModel"] == "modeling_hyenadna.HyenaDNAModel"
        assert config.classifier_pooling == "mean"


def test_filter_dropout_is_dropped_with_a_word(caplog):
    import logging

    logger = logging.getLogger("hyenadna_hf.model.configuration_hyenadna")
    logger.addHandler(caplog.handler)
    try:
        assert "hyena_filter_dropout" not in HyenaDNAConfig(hyena_filter_dropout=0.0).to_dict()
        assert not caplog.records
        assert "hyena_filter_dropout" not in HyenaDNAConfig(hyena_filter_dropout=0.25).to_dict()
        assert "hyena_filter_dropout=0.25" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize(
    "field, value",
    [
        ("vocab_size", 0),
        ("d_model", -4),
        ("d_model", 8.5),
        ("n_layer", 0),
        ("n_layer", True),
        ("d_inner", 0),
        ("max_seq_len", 1),
        ("hyena_order", 1),
        ("short_filter_order", 0),
        ("filter_order", 0),
        ("emb_dim", 4),
        ("emb_dim", 1),
        ("num_inner_mlps", -1),
        ("activation_freq", 0),
        ("embed_dropout", 1.0),
        ("resid_dropout", -0.1),
        ("hyena_dropout", "0.1"),
        ("classifier_dropout", 2),
        ("layer_norm_epsilon", 0),
        ("initializer_range", float("nan")),
        ("pad_vocab_size_multiple", 0),
        ("classifier_pooling", "median"),
        ("classifier_bias", "yes"),
        ("train_freq", 1),
        ("trained_positions", None),
        ("use_bias", "no"),
        ("compat_padding", 0),
        ("num_prompt_tokens", -1),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}={value!r}"):
        HyenaDNAConfig(**{field: value})


def test_every_field_matters():
    """No field of ours is ignored by the code: each is read somewhere besides the configuration."""
    from pathlib import Path

    import hyenadna_hf.model as package

    folder = Path(package.__file__).parent
    files = [path for path in folder.glob("*_hyenadna.py") if not path.name.startswith("configuration")]
    source = "".join(path.read_text() for path in files)
    fields = HyenaDNAConfig().to_dict().keys() - HyenaDNAConfig.__mro__[1]().to_dict().keys()
    elsewhere = {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "auto_map",
        "num_attention_heads",
        "num_key_value_heads",
        "tie_word_embeddings",
    }
    for field in fields - elsewhere:
        assert f"config.{field}" in source, field
