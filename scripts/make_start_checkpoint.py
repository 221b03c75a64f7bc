"""
Make the checkpoint that ships with the package, from the HyenaDNA classifier inside the Python package remag 0.3.3.

    python scripts/make_start_checkpoint.py remag/hyenadna_classifier/models/pytorch_model.bin.20251024
"""

import argparse
from pathlib import Path

from transformers import AutoConfig

from hyenadna_hf.hub.code import link_code
from hyenadna_hf.hub.convert import convert


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("weights", help="the pickled classifier, out of the wheel")
    parser.add_argument("--out", default="hyenadna_hf/pretrained/hyenadna-tiny-1k-remag", help="must be absent")
    args = parser.parse_args()

    convert(args.weights, args.out, special_tokens_mode="cls_sep")
    fields = {"id2label": {0: "other", 1: "eukaryote"}, "label2id": {"other": 0, "eukaryote": 1}}
    fields |= {"problem_type": "single_label_classification", "embed_dropout": 0.0}
    AutoConfig.from_pretrained(args.out, **fields).save_pretrained(args.out)
    link_code(args.out)
    for name in ("README.md", "generation_config.json"):  # README.md and LICENSE are written by hand
        (Path(args.out) / name).unlink()


if __name__ == "__main__":
    main()
