"""`python -m lamina.cli` is the command `lamina` where its script is not on the PATH."""

from __future__ import annotations

from lamina.cli.app import main

if __name__ == "__main__":
    main()
