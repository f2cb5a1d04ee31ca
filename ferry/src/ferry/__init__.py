"""Move a SQLite database to PostgreSQL and back, with proof."""

__version__ = "0.1.0"
