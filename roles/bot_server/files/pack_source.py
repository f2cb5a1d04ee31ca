"""Name a directory by its contents and, if asked, pack it: the same contents give the same bytes.

    pack_source.py SETTINGS

SETTINGS is JSON: ``directory``, ``exclude`` (shell patterns for names at any depth), ``leave_out``
(paths inside the directory), ``archive`` (file to write, or empty). Prints JSON: ``digest``
(SHA-256 in hex), ``files`` (count), ``bytes``. Runs on the control machine; standard library only.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path


def members(root: Path, exclude: list[str], leave_out: list[str]) -> Iterator[Path]:
    """Yield files and links below ``root`` in a fixed order, directories only by their files.

    Raises:
        SystemExit: something is neither file nor link nor directory.

    """
    for directory, folders, names in os.walk(root):
        here = Path(directory)

        def wanted(name: str, here: Path = here) -> bool:
            inside = (here / name).relative_to(root).as_posix()
            excluded = any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
            return not excluded and inside not in leave_out

        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if wanted(name) and name not in links)
        for name in sorted(filter(wanted, names + links)):
            path = here / name
            if not (path.is_symlink() or path.is_file()):
                raise SystemExit(f"{path} is neither a file nor a link; take it out of the source")
            yield path


def entry(path: Path, root: Path) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member's header without owner, date and umask, and its contents."""
    info = tarfile.TarInfo(path.relative_to(root).as_posix())
    if path.is_symlink():
        info.type = tarfile.SYMTYPE
        info.linkname = str(path.readlink())
        return info, b""
    content = path.read_bytes()
    info.size = len(content)
    info.mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
    return info, content


def main() -> None:
    """Read the settings, print the name and write the archive."""
    settings = json.loads(sys.argv[1])
    root = Path(settings["directory"])
    digest = hashlib.sha256()
    count = size = 0
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(members(root, settings["exclude"], settings["leave_out"])):
            info, content = entry(path, root)
            head = f"{info.name}\0{info.type!r}\0{info.linkname}\0{info.mode:o}\0{info.size}\0"
            digest.update(head.encode("utf-8", "surrogateescape") + content)
            archive.addfile(info, io.BytesIO(content))
            count += 1
            size += len(content)
    if settings["archive"]:
        target = Path(settings["archive"])
        target.write_bytes(gzip.compress(packed.getvalue(), compresslevel=6, mtime=0))
    print(json.dumps({"digest": digest.hexdigest(), "files": count, "bytes": size}))


if __name__ == "__main__":
    main()
