"""report: one HTML page from the JSON of any command."""

import json
import re
from html import escape

from support.html_page import check

from ferry import page


def test_reports_of_all_commands_on_one_page(ferry, make_sqlite, database, tmp_path):
    good = make_sqlite(
        'CREATE TABLE "<b>t&" (id INTEGER PRIMARY KEY, v TEXT);'
        "INSERT INTO \"<b>t&\" VALUES (1, '<i>');"
        'CREATE TRIGGER tr AFTER INSERT ON "<b>t&" BEGIN SELECT 1; END',
        name="good.db",
    )
    bad = make_sqlite(
        "CREATE TABLE x (a INTEGER); INSERT INTO x VALUES ('<script>')", name="bad.db"
    )
    program = tmp_path / "bot.py"
    program.write_text("db.execute('SELECT nothing FROM nowhere')")
    runs = [ferry("copy", good, database.dsn), ferry("sync", good, database.dsn)]
    with database.connect() as connection:
        connection.execute("UPDATE \"<b>t&\" SET v = 'other'")
    runs += [
        ferry("verify", good, database.dsn),
        ferry("inspect", bad),
        ferry("reverse", database.dsn, tmp_path / "back.db"),
        ferry("audit-sql", program, database.dsn),
        ferry("copy", bad, "host=/nowhere"),
    ]
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "x"\ncolumn = "a"\nhazard = "text-in-number"\naction = "quarantine"\n'
        '[[rename]]\ntable = "x"\nto = "new & <better>"\n'
    )
    runs.append(ferry("copy", bad, database.dsn, "--rules", rules, "--schema", "ruled"))
    assert [run.code for run in runs] == [0, 0, 4, 3, 0, 3, 3, 0]
    files = []
    for number, run in enumerate(runs):
        files.append(tmp_path / f"r{number}.json")
        files[-1].write_text(json.dumps(run.report))
    out = tmp_path / "page.html"
    run = ferry("report", *files, "-o", out)
    assert run.code == 0, run
    text = check(out)
    for expected in (
        "<b>t&",
        "text-in-number",
        "<script>",
        "trigger",
        "nowhere",
        "First differences",
        "Carried since the copy",
        "What the rules did",
        "rules.quarantine.jsonl",
        "new & <better>",
        runs[0].report["tables"][0]["checksum_sqlite"],
    ):
        assert expected in text


def test_what_is_no_report_is_a_usage_error(ferry, tmp_path):
    out = tmp_path / "page.html"
    for content in ("no json", "[]", "{}"):
        (tmp_path / "x.json").write_text(content)
        assert ferry("report", tmp_path / "x.json", "-o", out).code == 2
    assert ferry("report", tmp_path / "missing.json", "-o", out).code == 2
    assert not out.exists()


def test_a_narrow_screen_loses_no_column():
    """Each cell carries its head, and the rows fall apart into lines below the width of a phone."""
    heads = ("table", "rows", "equal <of both>")
    html = page.document("t", page.table("", heads, [("rounds", 1234, True), ("links", 0, None)]))
    cells = re.findall(r'<td data-head="([^"]*)"', html)
    assert cells == [escape(head) for head in heads] * 2
    narrow = re.search(r"@media \(max-width: 40rem\) \{ \.cards-when-narrow .*?\} \}", html, re.S)
    assert narrow, "390 px are 24 rem"
    assert "display: flex" in narrow[0]
    assert "attr(data-head)" in narrow[0]
