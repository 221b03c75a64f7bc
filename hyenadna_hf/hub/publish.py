"""`hyenadna publish`: upload a folder to the Hub, with everything needed to load it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import HfHubHTTPError, validate_repo_id
from rich.console import Console

from ..arguments import CommandParser
from ..errors import InputError
from .card import TASKS, model_card
from .code import copy_code

# Not published: checkpoints to resume from, and files of the Trainer.
NOT_PUBLISHED = ("checkpoint-*", "runs", "training_args.bin", "__pycache__", ".*")

# Loads a folder like a user who does not have this package.
LOAD_WITHOUT_PACKAGE = """
import sys
sys.modules["hyenadna_hf"] = None
import torch, transformers
folder, auto_class = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model, loading = getattr(transformers, auto_class).from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True
)
wrong = {name: sorted(map(str, keys)) for name, keys in loading.items() if keys}
if wrong:
    sys.exit(f"weights do not match the model: {wrong}")
with torch.no_grad():
    if not model.eval()(**tokenizer("ACGTACGTAC", return_tensors="pt"))[0].isfinite().all():
        sys.exit("the outputs are not finite")
"""


@dataclass
class PublishArguments:
    """Options of `hyenadna publish`."""

    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, created if it does not exist (default: main)."}
    )
    license: str | None = field(default=None, metadata={"help": "Identifier of the model's licence, for a new card."})
    message: str = field(default="Upload HyenaDNA", metadata={"help": "Commit message."})


def parser() -> CommandParser:
    """Create the parser of `hyenadna publish`."""
    parser = CommandParser(
        "publish",
        PublishArguments,
        "Upload a saved HyenaDNA model to the Hub, with its code, its tokenizer and a model card.",
        "FOLDER OWNER/NAME [ARGUMENT ...]",
        ["hyenadna-finetuned me/hyenadna-splice-sites --private --license mit"],
    )
    parser.add_argument("folder", help="Saved model, as written by hyenadna finetune and hyenadna convert.")
    parser.add_argument("repo_id", help="Repository on the Hub: owner/name.")
    return parser


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna publish` with the arguments `argv`."""
    args, target = parser().parse(argv)
    url = publish(target.folder, target.repo_id, args.private, args.revision, args.license, args.message)
    Console().print(f"Published: {url}", soft_wrap=True)
    return {"url": url}


def publish(
    folder: str | Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    license: str | None = None,
    message: str = "Upload HyenaDNA",
) -> str:
    """
    Upload a saved model in one commit. An interrupted upload resumes without sending files again.

    The folder is not changed. Missing code files come from this package; a missing README.md is written from the
    configuration and, if it exists, `results.json`. The snippet of the model card loads the repository.

    Args:
        folder: Folder of a saved model with its tokenizer.
        repo_id: Repository on the Hub, `owner/name`, created if it does not exist.
        private: Whether to make a new repository private.
        revision: Branch to upload to, created if it does not exist. Defaults to the main branch.
        license: Licence identifier for a new model card.
        message: Commit message.

    Returns:
        The URL of the commit.

    Raises:
        InputError: If the folder is not a complete HyenaDNA model, does not load in a process without this package, or
            the Hub rejects it.
    """
    folder = Path(folder)
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise InputError(f"{repo_id}: not a valid repository name ({error}).") from error
    auto_class = _find_auto_class(folder)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / folder.resolve().name
        shutil.copytree(folder, stage, ignore=shutil.ignore_patterns(*NOT_PUBLISHED))
        copy_code(stage)
        _write_card(stage, repo_id, license)
        _load_without_package(folder, stage, auto_class, Path(temporary) / "cache")
        api = HfApi()
        try:
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                folder_path=stage,
                repo_id=repo_id,
                revision=revision,
                commit_message=message,
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{repo_id}: the upload failed ({reason}). Log in with `hf auth login` if necessary, and run the "
                "same command again to resume."
            ) from error
    return str(commit.commit_url)


def _find_auto_class(folder: Path) -> str:
    """Return the name of the Auto class of the model in a folder, after checking that the folder is complete."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: contains no config.json; save a model there first.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (architecture,) = config["architectures"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}/config.json: names no architecture; save the model with save_pretrained."
        ) from error
    if config.get("model_type") != "hyenadna" or architecture not in TASKS:
        raise InputError(f"{folder}/config.json: {architecture} is not a HyenaDNA model.")
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(
            f"{folder}: contains no tokenizer; run HyenaDNATokenizer(...).save_pretrained({str(folder)!r})."
        )
    return TASKS[architecture][0]


def _write_card(stage: Path, repo_id: str, license: str | None) -> None:
    readme, results = stage / "README.md", stage / "results.json"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
    else:
        text = model_card(
            stage, repo_id, license=license, results=json.loads(results.read_text()) if results.is_file() else None
        )
    # The heading of our cards is the name that the snippet loads: on the Hub, that must be the repository.
    heading = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    if heading:
        text = text.replace(f'.from_pretrained("{heading[1]}"', f'.from_pretrained("{repo_id}"')
    readme.write_text(text, encoding="utf-8")
    try:
        card = ModelCard(text)
    except Exception as error:  # YAML errors of several kinds
        raise InputError(f"README.md: front matter is not valid ({' '.join(str(error).split())}).") from error
    if license and not card.data.license:
        card.data.license = license
        card.save(readme)


def _load_without_package(folder: Path, stage: Path, auto_class: str, cache: Path) -> None:
    """Raise `InputError` if the staged folder does not load in a process without this package."""
    cache.mkdir()
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_PACKAGE, str(stage), auto_class],
        cwd=cache,
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no reason given"
        raise InputError(f"{folder}: not published, because it does not load without this package: {reason}")
