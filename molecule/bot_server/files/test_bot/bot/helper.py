"""What a release differs in."""

VERSION = 1
