"""What the failed moves of this scenario have left and said."""

from scenario import discord, sql

WORDS = (
    "moves to its new home", "back, in its new home", "did not work out", "back in its old home",
)  # fmt: skip


def test_the_players_were_told_by_the_webhook_what_happens():
    told = [message["content"] for message in discord("/messages?author=webhook")]
    said = [next(word for word in WORDS if word in text) for text in told]
    # The move, three ways back (two of which did not come to their end), faults, and the last move.
    assert said[:3] == ["moves to its new home", "back, in its new home", "back in its old home"]
    assert "did not work out" in said
    assert said[-1] == "back, in its new home"


def test_the_failed_move_left_its_copy_aside_and_said_so():
    assert int(sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_aside\\_%'")) >= 1
