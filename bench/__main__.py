"""``python -m bench``: see commands.py."""

from bench.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
