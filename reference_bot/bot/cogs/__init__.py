"""Groups of Discord commands."""
