import sys

from hyenadna_cli import run

sys.exit(run())
