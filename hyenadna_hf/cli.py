"""Run the command line from Python: `main(["finetune", "--num_train_epochs", "2"])`."""

from hyenadna_cli import main

__all__ = ["main"]
