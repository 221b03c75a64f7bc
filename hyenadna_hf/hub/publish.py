"""`hyenadna publish`: a folder to the Hub, with all that a stranger needs to load it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import HfHubHTTPError, validate_repo_id
from rich.console import Console

from ..arguments import CommandParser
from ..errors import InputError
from .card import TASKS, model_card
from .code import copy_code

# What stays at home: checkpoints to resume from, and the Trainer's own files.
NOT_PUBLISHED = ("checkpoint-*", "runs", "training_args.bin", "__pycache__", ".*")

# Loads a folder as a stranger would, who does not have this package.
STRANGER = """
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
    sys.exit(f"weights do not fit: {wrong}")
with torch.no_grad():
    if not model.eval()(**tokenizer("ACGTACGTAC", return_tensors="pt"))[0].isfinite().all():
        sys.exit("the outputs are not finite")
"""


@dataclass
class PublishArguments:
    """The options of `hyenadna publish`."""

    private: bool = field(default=False, metadata={"help": "Make the repository private if it is a new one."})
    revision: str | None = field(
        default=None, metadata={"help": "Branch to upload to, made if it is absent (default: main)."}
    )
    license: str | None = field(default=None, metadata={"help": "Identifier of the model's licence, for a new card."})
    message: str = field(default="Upload HyenaDNA", metadata={"help": "Commit message."})


def parser():
    """The arguments of `hyenadna publish`."""
    parser = CommandParser(
        "publish",
        PublishArguments,
        "Upload a saved HyenaDNA model to the Hub, with its code, its tokenizer and a model card.",
        "FOLDER OWNER/NAME [ARGUMENT ...]",
        ["hyenadna-finetuned me/hyenadna-splice-sites --private --license mit"],
    )
    parser.add_argument("folder", help="A saved model, as hyenadna finetune and hyenadna convert write it.")
    parser.add_argument("repo_id", help="Repository on the Hub: owner/name.")
    return parser


def main(argv):
    """Run `hyenadna publish` with the arguments `argv` (a list of `str`)."""
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
    Upload a saved model in one commit. What an interrupted upload already brought over is not sent again.

    The folder itself stays as it is. Code files that it lacks come from this package; a README.md that it lacks is
    made from its configuration and, if there is one, its `results.json`; the loading snippet names the repository.

    Args:
        folder (`str` or `Path`): A saved model with its tokenizer.
        repo_id (`str`): Repository on the Hub, `owner/name`; made if absent.
        private (`bool`, defaults to `False`): Make it private.
        revision (`str`, *optional*): Branch to upload to; made if absent.
        license (`str`, *optional*): Licence identifier for a card that is made here.
        message (`str`, *optional*): Commit message.

    Returns:
        `str`: the address of the commit.

    Raises:
        InputError: if the folder is no complete HyenaDNA model, does not load in a process without this package, or
            the Hub refuses it.
    """
    folder = Path(folder)
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise InputError(f"{repo_id}: no name of a repository ({error}).") from error
    auto_class = _check(folder)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / folder.resolve().name
        shutil.copytree(folder, stage, ignore=shutil.ignore_patterns(*NOT_PUBLISHED))
        copy_code(stage)
        _write_card(stage, repo_id, license)
        _load_as_stranger(folder, stage, auto_class, Path(temporary) / "cache")
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
                f"{repo_id}: the upload failed ({reason}). Log in with `hf auth login` if need be, and run the same "
                "command again; what arrived is not sent twice."
            ) from error
    return str(commit.commit_url)


def _check(folder):
    """The Auto class of the model in a folder."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: there is no config.json in it; save a model there first.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (architecture,) = config["architectures"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}/config.json: it names no architecture; save the model with save_pretrained."
        ) from error
    if config.get("model_type") != "hyenadna" or architecture not in TASKS:
        raise InputError(f"{folder}/config.json: {architecture} is no HyenaDNA model.")
    if not (folder / "tokenizer_config.json").is_file():
        raise InputError(
            f"{folder}: there is no tokenizer in it; HyenaDNATokenizer(...).save_pretrained({str(folder)!r})."
        )
    return TASKS[architecture][0]


def _write_card(stage, repo_id, license):
    readme, results = stage / "README.md", stage / "results.json"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
    else:
        text = model_card(
            stage, repo_id, license=license, results=json.loads(results.read_text()) if results.is_file() else None
        )
    # A card of ours names in its heading what its snippet loads: for whoever reads it on the Hub, the repository.
    heading = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    if heading:
        text = text.replace(f'.from_pretrained("{heading[1]}"', f'.from_pretrained("{repo_id}"')
    readme.write_text(text, encoding="utf-8")
    try:
        card = ModelCard(text)
    except Exception as error:  # YAML errors of several kinds
        raise InputError(f"README.md: its front matter is not valid ({' '.join(str(error).split())}).") from error
    if license and not card.data.license:
        card.data.license = license
        card.save(readme)


def _load_as_stranger(folder, stage, auto_class, cache):
    cache.mkdir()
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, str(stage), auto_class],
        cwd=cache,
        env=environment,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "no reason given"
        raise InputError(f"{folder}: not published, because it does not load without this package: {reason}")
