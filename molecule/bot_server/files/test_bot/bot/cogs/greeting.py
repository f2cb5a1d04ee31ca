"""An extension."""

GREETING = "gg"
