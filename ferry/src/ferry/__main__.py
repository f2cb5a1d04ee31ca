"""Run as ``python -m ferry``."""

from ferry.cli import main

if __name__ == "__main__":
    main()
