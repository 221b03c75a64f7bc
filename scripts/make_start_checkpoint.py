"""
Make the checkpoint that ships with the package, from the HyenaDNA classifier inside the Python package remag 0.3.3.

    python scripts/make_start_checkpoint.py --weights classifier.safetensors

`--weights` holds its tensors under the names of the standalone layout (`backbone.*`, `head.output_transform.*`).
"""

import argparse
from pathlib import Path

from safetensors.torch import load_file

from hyenadna_hf import HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.hub.sizes import published_config


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="safetensors file")
    parser.add_argument("--out", default="hyenadna_hf/pretrained/hyenadna-tiny-1k-remag")
    args = parser.parse_args()

    labels = {"id2label": {0: "other", 1: "eukaryote"}, "label2id": {"other": 0, "eukaryote": 1}}
    config = published_config("hyenadna-tiny-1k-seqlen", problem_type="single_label_classification", **labels)
    model = HyenaDNAForSequenceClassification(config)
    model.load_state_dict(
        {
            name.replace("backbone.", "hyena.backbone.", 1).replace("head.output_transform.", "score."): tensor
            for name, tensor in load_file(args.weights).items()
            if not name.startswith("golden.")
        }
    )
    model.save_pretrained(args.out)
    tokenizer = HyenaDNATokenizer(model_max_length=config.max_seq_len, special_tokens_mode="cls_sep")
    tokenizer.save_pretrained(args.out)
    # Inside the package the package's own code serves.
    for file in Path(args.out).glob("*_hyenadna.py"):
        file.unlink()


if __name__ == "__main__":
    main()
