"""A page judged as a browser would: balanced tags, nothing loaded from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Finds anything that is loaded from elsewhere, and unbalanced tags."""

    def __init__(self):
        super().__init__()
        self.open, self.foreign, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta",):
            self.open.append(tag)
        self.foreign += [value for name, value in attributes if name in ("src", "href")]
        if tag == "script":
            self.foreign.append("script")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check(path):
    checker = Checker()
    checker.feed(path.read_text())
    assert checker.open == []
    assert checker.foreign == []
    assert "prefers-color-scheme: dark" in path.read_text()
    return " ".join(checker.text)
