import sys

from hyenadna_cli import main

sys.exit(main())
