"""playbooks/files/parcel.py against a hostile sender, a hostile receiver and a hostile bot.

The corpus are archives that no sender packs; each is refused by name, and nothing is written. Then
Hypothesis makes up names: whatever comes, nothing outside of the folder changes.
"""

import contextlib
import importlib.util
import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/parcel.py"
BOT = 54321  # a user without a name
OTHER = 54322
as_root = pytest.mark.skipif(os.getuid() != 0, reason="who is not root cannot be another user")


def load():
    spec = importlib.util.spec_from_file_location("parcel", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["parcel"] = module  # its named tuples look themselves up
    spec.loader.exec_module(module)
    return module


parcel = load()
GOOD = {"files": 1, "left_out": []}


class Archive:
    """An archive as anybody could write one."""

    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w")  # noqa: SIM115 - closed by done()

    def add(self, name, data=b"contents", **facts):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        for key, value in facts.items():
            setattr(entry, key, value)
        self.tar.addfile(entry, io.BytesIO(data))
        return self

    def done(self, said=GOOD):
        self.add("file.json", json.dumps(said).encode())
        self.tar.close()
        return self.path


def everything(top):
    """Return what is below a directory: kinds, modes, owners and contents."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        found[str(path)] = (status.st_mode, status.st_uid, text, target)
    return found


@pytest.fixture
def world(tmp_path):
    """A folder that things come into, and a victim beside it."""
    (tmp_path / "world/local_stats").mkdir(parents=True)
    (tmp_path / "world/victim").write_text("root's")
    return tmp_path


def unpack(world, archive, **wish):
    folders = [str(world / "world/local_stats")]
    return parcel.unpack({"archive": str(archive), "folders": folders, **wish})


def names(*several):
    def build(archive):
        for name in several:
            archive.add(name)

    return build


def kind(code, name="folders/local_stats/x", **facts):
    return lambda archive: archive.add(name, b"", type=code, **facts)


CORPUS = {
    "an absolute part": names("folders/local_stats//etc/systemd/system/bot.service.d/x.conf"),
    "an absolute name": names("/folders/local_stats/x"),
    "two dots": names("folders/local_stats/../../victim"),
    "two dots at the end": names("folders/local_stats/day/.."),
    "a dot": names("folders/local_stats/./x"),
    "an empty part": names("folders/local_stats/day//x"),
    "no name": names("folders/local_stats/"),
    "another folder": names("folders/etc/x"),
    "the folder's folder": names("folders/../local_stats/x"),
    "no folder": names("x"),
    "something beside": names("file.json.sig"),
    "twice the same": names("folders/local_stats/x", "folders/local_stats/x"),
    "twins by case": names("folders/local_stats/x", "folders/local_stats/X"),
    "twins by composition": names("folders/local_stats/\u00e9", "folders/local_stats/e\u0301"),
    "twins by compatibility": names("folders/local_stats/\ufb01", "folders/local_stats/fi"),
    "twin folders": names("folders/local_stats/a/x", "folders/local_stats/A/y"),
    "a file that is a folder": names("folders/local_stats/a", "folders/local_stats/a/x"),
    "a folder that is a file": names("folders/local_stats/a/x", "folders/local_stats/A"),
    "an escape sequence": names("folders/local_stats/\x1b[2Jx"),
    "a right-to-left name": names("folders/local_stats/\u202etxt.x"),
    "a name that is not UTF-8": names(os.fsdecode(b"folders/local_stats/\xff")),
    "a long name": names("folders/local_stats/" + "x" * 300),
    "a deep one": names("folders/local_stats/" + "a/" * 40 + "x"),
    "a symbolic link": kind(tarfile.SYMTYPE, linkname="../victim"),
    "a hard link": kind(tarfile.LNKTYPE, linkname="folders/local_stats/y"),
    "a directory": kind(tarfile.DIRTYPE),
    "a pipe": kind(tarfile.FIFOTYPE),
    "a device": kind(tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a disk": kind(tarfile.BLKTYPE, devmajor=8, devminor=0),
    "a sparse file": kind(tarfile.GNUTYPE_SPARSE),
    "an unknown kind": kind(b"Z"),
    "what it says of itself is a link": kind(tarfile.SYMTYPE, "file.json", linkname="/etc/shadow"),
    "what it says of itself twice": lambda archive: archive.add("file.json", b"{}"),
    "a file that nobody asked for": names("file.blocks"),
    "a time before all times": lambda a: a.add("folders/local_stats/x", mtime=-(1 << 40)),
}


@pytest.mark.parametrize("case", CORPUS)
def test_a_hostile_archive_is_refused_before_a_byte_is_written(world, case):
    archive = Archive(world / "parcel").add("folders/local_stats/good.txt")
    CORPUS[case](archive)
    path = archive.done()
    before = everything(world)
    with pytest.raises(SystemExit) as refused:
        unpack(world, path)
    assert str(refused.value).startswith(("the archive", "what the archive"))
    assert str(refused.value).isprintable()
    assert everything(world) == before


@pytest.mark.parametrize(
    "said",
    [
        None, [], {}, "x", {"files": -1}, {"files": True}, {"files": 1.5}, {"files": "1"},
        {"files": 1, "left_out": "x"}, {"files": 1, "left_out": None},
    ],
)  # fmt: skip
def test_what_an_archive_says_of_itself_has_its_form(world, said):
    with pytest.raises(SystemExit, match="has another form"):
        unpack(world, Archive(world / "parcel").done(said))


def test_no_archive_and_half_an_archive_are_refused(world):
    whole = Archive(world / "parcel").add("folders/local_stats/x", b"x" * 5000).done().read_bytes()
    for text in (b"", b"no archive" * 100, zlib.compress(whole), whole[:700], whole[:3000]):
        (world / "parcel").write_bytes(text)
        with pytest.raises(SystemExit, match="the archive"):
            unpack(world, world / "parcel")
        assert list((world / "world/local_stats").iterdir()) == []


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"files": 1}, "more than 1 files"), ({"file_bytes": 7}, "more than 7 bytes"),
     ({"folder_bytes": 15}, "more than 15 bytes"), ({"depth": 1}, "more than 1 folders deep")],
)  # fmt: skip
def test_number_and_sizes_have_limits(world, limits, said):
    archive = Archive(world / "parcel")
    for name in ("a", "b", "d/c", "d/d"):
        archive.add(f"folders/local_stats/{name}")
    with pytest.raises(SystemExit, match=said):
        unpack(world, archive.done(), limits=limits)
    assert list((world / "world/local_stats").iterdir()) == []


@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.lists(
                st.sampled_from(["", ".", "..", "a", "A", "b", "\u212a", "k", "\x1b[m", "~", "\\"]),
                max_size=6,
            ).map("/".join),
        ),
        max_size=5,
    ),
    st.sampled_from([b"0", b"0", b"0", b"1", b"2", b"3", b"5", b"7", b"L", b"x"]),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_names_are_nothing_outside_changes(world, several, code):
    archive = Archive(world / "parcel")
    for name in several:
        with contextlib.suppress(ValueError, UnicodeError):
            archive.add(f"folders/local_stats/{name}", type=code)
    with contextlib.suppress(ValueError, UnicodeError):
        archive.done()
    stats = world / "world/local_stats"
    before = everything(stats)
    with contextlib.suppress(SystemExit):
        unpack(world, world / "parcel")
        assert all(path.is_dir() or path.is_file() for path in stats.rglob("*"))
    assert (world / "world/victim").read_text() == "root's"
    beside = {path.name.partition(".aside-")[0] for path in (world / "world").iterdir()}
    assert beside <= {"local_stats", "victim"}
    assert not any(path.is_symlink() for path in stats.rglob("*"))
    assert before.keys() <= everything(stats).keys()


@given(st.binary(max_size=1500), st.integers(0, 3000))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_bytes_are_it_ends_with_a_sentence(world, noise, at):
    path = Archive(world / "parcel").add("folders/local_stats/x", b"x" * 900).done()
    whole = bytearray(path.read_bytes())
    whole[at : at + len(noise)] = noise
    path.write_bytes(whole)
    with contextlib.suppress(SystemExit):  # any other error fails the test
        unpack(world, path)
    assert (world / "world/victim").read_text() == "root's"


def blocks(*parts):
    packed = [(number, zlib.compress(data) if data else raw) for number, data, raw in parts]
    return b"".join(
        number.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data for number, data in packed
    )


SAID = {"files": 0, "size": 70_000, "block": 65_536, "blocks": 2, "changed": 2, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "text", "said"),
    [
        ({}, blocks((0, b"x" * 65_536, b""), (0, b"x" * 65_536, b"")), "not as a sender packs"),
        ({}, blocks((1, b"x" * 4_464, b""), (0, b"x" * 65_536, b"")), "not as a sender packs"),
        ({}, blocks((1 << 40, b"x" * 65_536, b"")), "not as a sender packs"),
        ({}, blocks((0, b"x" * 65_537, b"")), "another size"),
        ({}, blocks((0, b"\0" * (1 << 26), b"")), "another size"),
        ({}, blocks((0, b"x", b"")), "another size"),
        ({}, blocks((0, None, b"no zlib")), "damaged"),
        ({}, b"\0" * 15, "not as a sender packs"),
        ({}, b"\0" * 8 + b"\xff" * 8, "not as a sender packs"),
        ({"block": 1 << 40}, b"", "another size"),
        ({"size": 1 << 60}, b"", "another form"),
        ({"sha256": "../../etc"}, b"", "another form"),
        ({}, b"", "is not what was sent"),
    ],
)  # fmt: skip
def test_hostile_blocks_leave_no_file(world, changes, text, said):
    path = Archive(world / "parcel").add("file.blocks", text).done({**SAID, **changes})
    wish = {"file": str(world / "final.db"), "base": str(world / "base.db")}
    with pytest.raises(SystemExit, match=said):
        unpack(world, path, **wish)
    assert {path.name for path in world.iterdir()} == {"parcel", "world"}


# -- what lies in the way


def test_what_cannot_be_placed_is_set_aside_and_named(world):
    """A directory where a stats file should be does not keep the rows from coming back."""
    stats = world / "world/local_stats"
    (stats / "a.txt/inside").mkdir(parents=True)
    (stats / "day").symlink_to("/etc")
    archive = Archive(world / "parcel").add("folders/local_stats/a.txt")
    archive.add("folders/local_stats/day/b.txt").add("folders/local_stats/c.txt")
    said = unpack(world, archive.done())
    assert [sentence.partition(" is in the way")[0] for sentence in said["aside"]] == [
        f"{stats}/a.txt", f"{stats}/day/b.txt",
    ]  # fmt: skip
    (aside,) = (world / "world").glob("local_stats.aside-*")
    assert (aside / "a.txt").read_text() == (aside / "day/b.txt").read_text() == "contents"
    assert (stats / "c.txt").read_text() == "contents"
    assert (stats / "a.txt/inside").is_dir()
    assert str((stats / "day").readlink()) == "/etc"
    assert not list(stats.glob(".*.part"))


def test_a_link_in_place_of_a_file_is_replaced_not_followed(world):
    link = world / "world/local_stats/a.txt"
    link.symlink_to(world / "world/victim")
    unpack(world, Archive(world / "parcel").add("folders/local_stats/a.txt", mode=0o6777).done())
    assert not link.is_symlink()
    assert link.read_text() == "contents"
    assert stat.S_IMODE(link.stat().st_mode) == 0o750
    assert (world / "world/victim").read_text() == "root's"


@pytest.mark.parametrize("action", ["unpack", "pack", "describe"])
def test_a_folder_that_is_a_link_is_refused_by_name(world, action):
    (world / "world/elsewhere").mkdir()
    (world / "world/local_stats").rmdir()
    (world / "world/local_stats").symlink_to("elsewhere")
    folders = [str(world / "world/local_stats")]
    archive = Archive(world / "parcel").add("folders/local_stats/x").done()
    there = {"folders": {}}
    wish = {"folders": folders, "archive": str(archive), "there": there, "out": f"{world}/out"}
    with pytest.raises(SystemExit, match="local_stats is a symbolic link"):
        getattr(parcel, action)(wish)
    assert list((world / "world/elsewhere").iterdir()) == []


# -- the sender


def hostile_folder(stats):
    (stats / "keys").symlink_to("/etc/ssh")
    (stats / "shadow.txt").symlink_to("/etc/shadow")
    os.mkfifo(stats / "pipe")
    for name in ("good.txt", "Twin", "twin", "a\x1b[31mred", os.fsdecode(b"\xff")):
        (stats / name).write_text("x")


def test_the_packer_names_what_it_cannot_pack(world):
    stats = world / "world/local_stats"
    hostile_folder(stats)
    wish = {"folders": [str(stats)], "there": {"folders": {}}, "out": str(world / "out")}
    with pytest.raises(SystemExit) as refused:
        parcel.pack(wish)
    for each in (r"a\x1b[31mred: there are control", "keys: it is a symbolic link",
                 "pipe: it is a named pipe", "shadow.txt: it is a symbolic link",
                 "twin: it is a twin of Twin", "its name is not UTF-8"):  # fmt: skip
        assert each in str(refused.value)
    assert str(refused.value).isprintable()
    assert parcel.survey(wish)["problems"] == str(refused.value).split("; ")
    # A way back does without them.
    said = parcel.pack({**wish, "leave_out": True})
    assert said["files"] == 2
    assert len(said["left_out"]) == 6
    with tarfile.open(world / "out") as archive:
        assert archive.getnames() == [
            "folders/local_stats/Twin", "folders/local_stats/good.txt", "file.json",
        ]  # fmt: skip
    assert stat.S_IMODE((world / "out").stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [-1, 1 << 60, "x", None, 1.5, [1]])
def test_what_the_receiver_says_of_its_file_is_not_believed(world, size):
    (world / "bot.db").write_bytes(b"x" * 1000)
    there = {"file": {"size": size, "block": 0, "digests": ""}, "folders": {}}
    wish = {"file": f"{world}/bot.db", "folders": [], "there": there, "out": f"{world}/out"}
    with pytest.raises(SystemExit, match="the other side says"):
        parcel.pack(wish)


def test_a_file_that_changes_while_it_is_packed_does_not_break_the_archive(world, monkeypatch):
    stats = world / "world/local_stats"
    (stats / "log").write_text("x" * 1000)
    whole = parcel.open_file

    def shrinks(name, directory, said, flags=os.O_RDONLY):
        opened = whole(name, directory, said, flags)
        status = os.fstat(opened)
        (stats / "log").write_text("y")
        monkeypatch.setattr(parcel.os, "fstat", lambda _: status)
        return opened

    monkeypatch.setattr(parcel, "open_file", shrinks)
    found = next(iter(parcel.walk(os.open(stats, os.O_RDONLY), parcel.Names(9))))
    with tarfile.open(world / "out", "w") as archive:
        assert parcel.pack_file(archive, "log", found) == ""
    monkeypatch.undo()
    with tarfile.open(world / "out") as archive:
        assert archive.extractfile("log").read() == b"y" + b"\0" * 999


# -- root, and the users below


@pytest.fixture
def users(tmp_path):
    """A directory of root's with folders of two users: a bot and somebody else."""
    top = tmp_path / "state"
    for name, uid in (("local_stats", BOT), ("private", OTHER)):
        (top / name).mkdir(parents=True)
        os.chown(top / name, uid, uid)
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        above.chmod(0o711)
    (top / "private/secret.txt").write_text("secret")
    (top / "private/secret.txt").chmod(0o600)
    return top


@as_root
def test_root_becomes_the_owner_before_it_opens(users, tmp_path):
    archive = Archive(tmp_path / "parcel").add("folders/local_stats/day/x", mode=0o4755).done()
    parcel.unpack({"archive": str(archive), "folders": [str(users / "local_stats")]})
    for path in (users / "local_stats/day", users / "local_stats/day/x"):
        assert (path.stat().st_uid, path.stat().st_gid) == (BOT, BOT)
    # What its owner may not write, root does not write for it.
    (users / "local_stats/day").chmod(0o500)
    archive = Archive(tmp_path / "parcel").add("folders/local_stats/day/y").done()
    said = parcel.unpack({"archive": str(archive), "folders": [str(users / "local_stats")]})
    assert "Permission denied" in said["aside"][0]
    assert os.getuid() == os.geteuid() == 0


@as_root
def test_root_reads_for_a_bot_what_the_bot_may_read(users, tmp_path):
    (users / "local_stats/mine.txt").write_text("x")
    (users / "local_stats/mine.txt").chmod(0o600)  # root's
    folders = [str(users / "local_stats")]
    wish = {"folders": folders, "there": {"folders": {}}, "out": str(tmp_path / "out")}
    with pytest.raises(SystemExit, match=r"mine\.txt: it cannot be read: Permission denied"):
        parcel.pack(wish)
    (problem,) = parcel.survey(wish)["problems"]
    assert f"{BOT} cannot read it" in problem


@as_root
def test_a_directory_of_root_that_others_can_exchange_is_refused(users):
    os.chown(users, 0, BOT)
    users.chmod(0o775)
    (users / "roots").mkdir()
    with pytest.raises(SystemExit, match="others can put another one in its place"):
        parcel.describe({"folders": [str(users / "roots")]})
    users.chmod(0o1775)  # as /tmp: what is root's stays
    assert parcel.describe({"folders": [str(users / "roots")]})["folders"] == {"roots": {}}


@as_root
def test_a_link_of_a_user_on_the_way_is_not_followed_by_root(users):
    users.chmod(0o1777)
    (users / "way").symlink_to("/etc")
    os.chown(users / "way", BOT, BOT, follow_symlinks=False)
    with pytest.raises(SystemExit, match="way on the way there is a symbolic link"):
        parcel.describe({"folders": [str(users / "way/ssh")]})


@as_root
def test_the_archive_is_written_where_only_root_can_write(users):
    wish = {"folders": [], "there": {"folders": {}}, "out": str(users / "local_stats/out")}
    with pytest.raises(SystemExit, match="is root's alone"):
        parcel.pack(wish)
    with pytest.raises(SystemExit, match="is root's alone"):
        parcel.unpack({"folders": [], "archive": str(users / "local_stats/out")})


@as_root
def test_the_file_is_of_whoever_owns_its_place(users, tmp_path):
    (tmp_path / "bot.db").write_bytes(random.Random(1).randbytes(200_000))  # noqa: S311
    there = parcel.describe({"file": str(users / "local_stats/bot.db"), "folders": []})
    wish = {"file": str(tmp_path / "bot.db"), "folders": [], "out": str(tmp_path / "out")}
    parcel.pack({**wish, "there": there, "reader": OTHER})
    assert (tmp_path / "out").stat().st_uid == OTHER
    (users / "local_stats/bot.db").symlink_to(users / "private/secret.txt")
    wish = {"archive": str(tmp_path / "out"), "folders": []}
    parcel.unpack({**wish, "file": str(users / "local_stats/bot.db")})
    made = users / "local_stats/bot.db"
    assert made.lstat().st_uid == BOT
    assert made.read_bytes() == (tmp_path / "bot.db").read_bytes()
    assert (users / "private/secret.txt").read_text() == "secret"


@as_root
def test_a_command_runs_as_whoever_owns_the_place(users):
    argv = [sys.executable, "-I", PROGRAM, "run", str(users / "local_stats/bot.db")]
    done = subprocess.run([*argv, "sh", "-c", "id -u; id -G; pwd"], capture_output=True, text=True)
    assert done.stdout.split() == [str(BOT), str(BOT), str(users / "local_stats")]
    regain = "import os; os.seteuid(0)"
    done = subprocess.run([*argv, sys.executable, "-Ic", regain], capture_output=True, text=True)
    assert "PermissionError" in done.stderr
