"""Bring a file and some folders from one host to another as the difference to what is there.

    parcel.py describe WISH      where it goes: what lies there already
    parcel.py pack   < WISH      where it comes from: writes one archive with what differs
    parcel.py unpack   WISH      where it goes: makes the file, fills the folders

WISH is JSON, as an argument or on the standard input. ``describe``: ``file`` (may be missing),
``folders`` (a list). It prints ``file`` (``size``, ``block``, ``digests``) and ``folders``
({name: {path in it: [size, mtime]}}). ``pack``: that as ``there``, ``file``, ``folders`` (paths;
told apart by their last part) and ``out``, the archive. ``unpack``: ``archive``, ``base`` (the file
that was described; may be missing), ``file``, ``check_later`` (see below; may be missing),
``folders``, ``owner`` and ``group`` (of what comes into the folders). Without ``file`` only folders
travel. ``pack`` and ``unpack`` print ``sha256`` and ``size`` of the file, ``sent`` (bytes of the
archive), ``blocks`` and ``changed`` of them, and ``files`` (how many in folders).

The file is compared in blocks, so a database of gigabytes of which a few pages have changed travels
as these pages. With nothing there the whole of it travels, compressed. ``unpack`` fails, and leaves
no file, unless the result has the sender's SHA-256; to look at that costs reading everything, so
``check_later`` leaves it to the program that reads the file next. Standard library only, Python 3.8
or later.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCKS = 16_384  # at most so many digests: they travel too
SMALLEST_BLOCK = 65_536
DIGEST = 16  # bytes
AT_ONCE = 64  # blocks in memory
COMPRESSION = 1


def block_size(size: int) -> int:
    """Return the size of the blocks in which a file of this size is compared."""
    block = SMALLEST_BLOCK
    while block * BLOCKS < size:
        block *= 2
    return block


def read_blocks(file: BinaryIO, block: int) -> Iterator[bytes]:
    """Yield the contents in blocks."""
    while True:
        data = file.read(block)
        if not data:
            return
        yield data


def digest(data: bytes) -> bytes:
    """Return what tells blocks apart."""
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def difference(data: bytes, known: bytes) -> bytes | None:
    """Return a block as it travels; None if the other side has it."""
    return None if digest(data) == known else zlib.compress(data, COMPRESSION)


def files_of(folder: Path) -> dict[str, list[int]]:
    """Return {path in the folder: [size, mtime in seconds]}; nothing for a missing one."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            found[str(path.relative_to(folder))] = [status.st_size, int(status.st_mtime)]
    return found


def describe(wish: dict[str, Any]) -> dict[str, Any]:
    """Say what is there."""
    file = Path(wish["file"]) if "file" in wish else None
    size = file.stat().st_size if file and file.exists() else 0
    block = block_size(size)
    digests = b""
    if file and size:
        with file.open("rb") as opened:
            digests = b"".join(map(digest, read_blocks(opened, block)))
    folders = [Path(folder) for folder in wish["folders"]]
    return {
        "file": {"size": size, "block": block, "digests": base64.b64encode(digests).decode()},
        "folders": {folder.name: files_of(folder) for folder in folders},
    }


def write_difference(file: Path, there: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    """Write the blocks that differ, each as number, length and compressed data, one after another.

    Returns what is said of the file.
    """
    block = there["block"] if there["size"] else block_size(file.stat().st_size)
    known = base64.b64decode(there["digests"])
    size = number = changed = 0
    # All beside each other: it takes as long as reading everything, and nobody answers meanwhile.
    with ThreadPoolExecutor() as pool, file.open("rb") as opened:
        whole = pool.submit(sha256, file)
        blocks = read_blocks(opened, block)
        while True:
            some = list(islice(blocks, AT_ONCE))
            if not some:
                break
            theirs = [
                known[n * DIGEST : (n + 1) * DIGEST] for n in range(number, number + len(some))
            ]
            for data, packed in zip(some, pool.map(difference, some, theirs)):  # noqa: B905 - Python 3.8
                size += len(data)
                if packed is not None:
                    out.write(number.to_bytes(8, "big") + len(packed).to_bytes(8, "big") + packed)
                    changed += 1
                number += 1
    return {
        "sha256": whole.result(),
        "size": size,
        "block": block,
        "blocks": number,
        "changed": changed,
    }


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Put some bytes into an archive as a file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def pack(wish: dict[str, Any]) -> dict[str, Any]:
    """Write the archive. Its reader is the owner of the directory that it lies in."""
    out = Path(wish["out"])
    blocks = out.with_name(out.name + ".blocks")
    said: dict[str, Any] = {}
    try:
        if "file" in wish:
            with blocks.open("wb") as file:
                said = write_difference(Path(wish["file"]), wish["there"]["file"], file)
        with tarfile.open(out, "w") as archive:
            files = 0
            for folder in map(Path, wish["folders"]):
                there = wish["there"]["folders"].get(folder.name, {})
                for path, mark in files_of(folder).items():
                    if there.get(path) != mark:
                        archive.add(folder / path, f"folders/{folder.name}/{path}")
                        files += 1
            said["files"] = files
            add(archive, "file.json", json.dumps(said).encode())
            if "file" in wish:
                archive.add(blocks, "file.blocks")
    finally:
        if blocks.exists():
            blocks.unlink()
    owner = out.parent.stat()
    os.chown(out, owner.st_uid, owner.st_gid)
    return {**said, "sent": out.stat().st_size}


def patch(blocks: BinaryIO, size: int, file: Path) -> None:
    """Write blocks over a file, as they were packed."""
    with file.open("r+b") as opened:
        while True:
            head = blocks.read(16)
            if not head:
                break
            opened.seek(int.from_bytes(head[:8], "big") * size)
            opened.write(zlib.decompress(blocks.read(int.from_bytes(head[8:], "big"))))


def sha256(file: Path) -> str:
    """Return a file's SHA-256 in hex."""
    whole = hashlib.sha256()
    with file.open("rb") as opened:
        for data in read_blocks(opened, 1 << 20):
            whole.update(data)
    return whole.hexdigest()


def unpack_file(archive: tarfile.TarFile, said: dict[str, Any], wish: dict[str, Any]) -> None:
    """Make the file from its base and the archive; where that fails there is none."""
    base, file = Path(wish["base"]), Path(wish["file"])
    if not base.exists():
        file.write_bytes(b"")
    elif file != base:
        shutil.copyfile(base, file)
    file.chmod(0o600)
    try:
        patch(archive.extractfile("file.blocks"), said["block"], file)
        os.truncate(file, said["size"])
        found = said["sha256"] if wish.get("check_later") else sha256(file)
        if found != said["sha256"]:
            raise SystemExit(
                f"{file} is not what was sent: SHA-256 {found}, sent was {said['sha256']}"
            )
    except BaseException:
        file.unlink()
        raise


def unpack(wish: dict[str, Any]) -> dict[str, Any]:
    """Make the file, fill the folders."""
    folders = {Path(folder).name: Path(folder) for folder in wish["folders"]}
    with tarfile.open(wish["archive"]) as archive:
        said = json.loads(archive.extractfile("file.json").read())
        if "file" in wish:
            unpack_file(archive, said, wish)
        for entry in archive:
            kind, _, path = entry.name.partition("/")
            if kind == "folders":
                place(archive, entry, folders, path, (wish["owner"], wish["group"]))
    return {**said, "sent": Path(wish["archive"]).stat().st_size}


def place(
    archive: tarfile.TarFile,
    entry: tarfile.TarInfo,
    folders: dict[str, Path],
    path: str,
    owner: tuple[str, str],
) -> None:
    """Write one file into its folder, with its time; what names a place outside is refused."""
    name, _, inside = path.partition("/")
    if not entry.isfile() or ".." in Path(inside).parts:
        raise SystemExit(f"the archive holds what no sender packs: {entry.name}")
    target = folders[name] / inside
    made = target.parent
    while not made.exists():
        made = made.parent
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.extractfile(entry) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
    os.utime(target, (entry.mtime, entry.mtime))
    target.chmod(entry.mode & 0o750)  # a key stays its owner's alone
    for item in (target, *(parent for parent in target.parents if made in parent.parents)):
        shutil.chown(item, *owner)


if __name__ == "__main__":
    action = {"describe": describe, "pack": pack, "unpack": unpack}[sys.argv[1]]
    wish = json.loads(sys.argv[2]) if len(sys.argv) > 2 else json.load(sys.stdin)
    print(json.dumps(action(wish)))
