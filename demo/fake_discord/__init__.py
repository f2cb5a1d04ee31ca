"""Discord without Discord: as much of its REST API and gateway as a bot needs to work."""
