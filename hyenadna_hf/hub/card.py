"""Model cards."""

import json
import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

TASKS = {
    "HyenaDNAForCausalLM": ("AutoModelForCausalLM", "text-generation"),
    "HyenaDNAForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "HyenaDNAForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "HyenaDNAForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "HyenaDNAModel": ("AutoModel", "feature-extraction"),
}

TEXT = """\
# {name}

HyenaDNA ([Nguyen, Poli, Faizi et al. 2023](https://arxiv.org/abs/2306.15794)) reads DNA one nucleotide at a time, with
implicit long convolutions instead of attention. This model has {n_layer} layers of width {d_model} and accepts
sequences of up to {max_seq_len:,} tokens.{note}

```python
from transformers import {imports}

tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
{loading}
outputs = model(**tokenizer("ACGTACGT", return_tensors="pt"))
```
"""

LOADING = 'model = {auto_class}.from_pretrained("{name}", trust_remote_code=True)'
LOADING_WITHOUT_WEIGHTS = """\
config = AutoConfig.from_pretrained("{name}", trust_remote_code=True)
model = {auto_class}.from_config(config, trust_remote_code=True)"""


def model_card(
    folder: str | Path,
    name: str,
    note: str = "",
    license: str | None = None,
    datasets: list[str] | None = None,
    base_model: str | None = None,
    results: dict[str, Any] | None = None,
    has_weights: bool = True,
) -> str:
    """
    Write the text of a model card, with front matter that the Hub validates.

    Args:
        folder: Folder of a saved model, whose config.json provides sizes and task.
        name: Hub id or folder that the snippet loads.
        note: Sentences on the origin of the model.
        license: Identifier of its licence on the Hub.
        datasets: Hub ids of its training data.
        base_model: Hub id of the model that it was fine-tuned from.
        results: Contents of the `results.json` of `hyenadna finetune`, which become the metrics of the card.
        has_weights: Whether the snippet loads weights, rather than initialising them at random.

    Returns:
        The content of README.md.
    """
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or ["HyenaDNAModel"])[0]
    auto_class, pipeline_tag = TASKS[architecture]
    evaluations = None
    if results is not None:
        evaluations = [
            EvalResult(
                task_type=pipeline_tag,
                dataset_type=Path(results["dataset"]).name,
                dataset_name=Path(results["dataset"]).name,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(value, 4),
            )
            for metric, value in results["test"]["model"].items()
            if math.isfinite(value)
        ]
    data = ModelCardData(
        library_name="transformers",
        license=license,
        tags=["dna", "genomics", "biology", "hyena", "hyenadna", "custom_code"],
        pipeline_tag=pipeline_tag,
        datasets=datasets,
        base_model=base_model,
        model_name=name if evaluations else None,
        eval_results=evaluations,
    )
    text = TEXT.format(
        name=name,
        imports=f"AutoTokenizer, {auto_class}" if has_weights else f"AutoConfig, AutoTokenizer, {auto_class}",
        loading=(LOADING if has_weights else LOADING_WITHOUT_WEIGHTS).format(name=name, auto_class=auto_class),
        n_layer=config["n_layer"],
        d_model=config["d_model"],
        max_seq_len=config["max_seq_len"],
        note=f" {note}" if note else "",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}"
