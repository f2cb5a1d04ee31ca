"""Command line tools that also serve the bot."""
