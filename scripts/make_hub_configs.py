"""
Write hub_configs/, a complete Hub folder without weights for each published size, and complete hyenadna_hf/pretrained/.

    python scripts/make_hub_configs.py

In the repository the code files are links to those in hyenadna_hf/model/, so that there is one copy of them.
"""

from pathlib import Path

from hyenadna_hf.hub.code import link_code
from hyenadna_hf.hub.sizes import ALIASES, SIZE_NAMES, write_size_folder
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS

ROOT = Path(__file__).parents[1]

PUBLISHED_WEIGHTS = """
## Use the published weights

[LongSafari/{size}-hf](https://huggingface.co/LongSafari/{size}-hf) has weights of this size. With the package
hyenadna_hf, load them as they are. Importing it registers its classes, so no remote code runs:

```python
import hyenadna_hf
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("LongSafari/{size}-hf")
model = AutoModelForCausalLM.from_pretrained("LongSafari/{size}-hf")
```

Without the package, download the weights into this folder and trust its code:

```bash
hf download LongSafari/{size}-hf --include "*model.*" --local-dir {name}
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
```

The published tokenizer appends [SEP] to each sequence. The tokenizer of this folder adds nothing; pass
`special_tokens_mode="sep"` for the published behaviour.
"""


def main():
    for name in SIZE_NAMES:
        folder = ROOT / "hub_configs" / name
        write_size_folder(name, folder)
        write_card(name, folder)
        link_code(folder)
    for folder in BUNDLED_CHECKPOINTS.values():
        link_code(folder)


def write_card(name, folder):
    """Add to the card of a size folder how to use the published weights."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") + PUBLISHED_WEIGHTS.format(name=name, size=ALIASES.get(name, name))
    card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
