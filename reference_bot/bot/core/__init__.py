"""What the bot does apart from Discord."""
