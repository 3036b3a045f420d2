"""A bundle as one file to carry: zip, packed the same way each time, unpacked with suspicion.

An archive may name places outside its folder, hold links, name a file twice, or hold a few bytes that become terabytes. None of that is unpacked: names are
checked before anything is written, and what is written is counted, whatever the archive says of itself.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO

from recompress.errors import IntegrityError, StorageError
from recompress.integrity.durable import flush

MAX_FILES = 10_000
MAX_BYTES = 8 << 30
MAX_RATIO = 200
"""A file that grows by more than this was made to. The text of a bundle grows by less than 20."""
SMALL = 1 << 20
"""So much may always be unpacked: short files of one character compress well."""
CHUNK = 1 << 20
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 1024
"""Of a file's name, and of its path below the bundle: what file systems take, with room for the folder that it is unpacked in."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path, target: Path) -> Path:
    """Write all files below ``folder`` to ``target``, whole or not at all."""
    beside = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(file for file in folder.rglob("*") if file.is_file()):
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
                info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as place:
                    while chunk := source.read(CHUNK):
                        place.write(chunk)
        flush(beside)
        beside.replace(target)
        flush(target.parent)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}; choose a place that can be written and has space") from None
    finally:
        beside.unlink(missing_ok=True)
    return target


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack into ``folder``, which is empty, and give the folder that holds the files. Raises ``IntegrityError`` that names the first bad name."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check(archive, members)
            left = MAX_BYTES
            for member in members:
                with opened.open(member) as source:
                    left -= _write(archive, source, folder / member.filename, min(left, _limit(member)))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{archive} is not a zip file that can be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    except OSError as error:  # places that the archive names and does not have; what goes wrong while writing is told apart below
        raise IntegrityError(f"{archive} cannot be read as a zip file: {error.strerror}") from None
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def check_path(path: str) -> None:
    """Raises ``ValueError`` for a path that is not plainly below its folder."""
    if not path or not path.isprintable() or "\\" in path or ":" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(path)


def _check(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_FILES:
        raise IntegrityError(f"{archive} holds {len(members):,} files, the limit is {MAX_FILES:,}")
    seen: set[str] = set()
    for member in members:
        name = member.filename
        try:
            check_path(name)
        except ValueError:
            raise IntegrityError(f"{archive} names {name[:120]!r}, which lies outside its folder or is no plain path; nothing was unpacked") from None
        longest = max(len(part.encode()) for part in name.split("/"))
        if longest > MAX_NAME_BYTES or len(name.encode()) > MAX_PATH_BYTES:
            limits = f"the limits are {MAX_NAME_BYTES} for a name and {MAX_PATH_BYTES:,} for a path"
            raise IntegrityError(f"{archive} names {name[:60]!r}…, with {len(name.encode()):,} bytes; {limits}; nothing was unpacked")
        if name in seen:
            raise IntegrityError(f"{archive} holds {name!r} twice; nothing was unpacked")
        seen.add(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise IntegrityError(f"{archive}: {name!r} is a link or no plain file; nothing was unpacked")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # each further way to compress is a decoder that fails in ways of its own
            raise IntegrityError(
                f"{archive}: {name!r} is compressed by method {member.compress_type}, only deflate is read; pack it again; nothing was unpacked"
            )
        if member.file_size > _limit(member):
            raise IntegrityError(f"{archive}: {name!r} would grow from {member.compress_size:,} to {member.file_size:,} bytes; nothing was unpacked")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise IntegrityError(f"{archive} would grow to more than {MAX_BYTES:,} bytes; nothing was unpacked")


def _limit(member: zipfile.ZipInfo) -> int:
    return max(SMALL, MAX_RATIO * member.compress_size)


def _write(archive: Path, source: IO[bytes], target: Path, limit: int) -> int:
    """Count what really comes out: the size in the archive's index is only a claim."""
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as place:
            while chunk := source.read(CHUNK):
                written += len(chunk)
                if written > limit:
                    raise IntegrityError(f"{archive}: {target.name!r} grows beyond {limit:,} bytes")
                place.write(chunk)
    except FileExistsError:
        raise IntegrityError(f"{archive}: {target.name!r} is both a file and a folder") from None
    except OSError as error:
        raise StorageError(f"{archive} cannot be unpacked: {error.strerror}") from None
    return written
