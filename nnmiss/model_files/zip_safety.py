"""Opens a zip from anybody: what its list of contents says is checked before a byte is unpacked, and again while it is."""
from __future__ import annotations

import hashlib
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

from nnmiss.errors import NnmissError
from nnmiss.plain_names import name_fault, shown

MOST_MEMBERS = 2000
LARGEST_LIST = 2**22  # bytes of the list of contents
MOST_RATIO = 200  # of unpacked to packed bytes, of files beyond RATIO_FROM
RATIO_FROM = 2**24
AT_ONCE = 2**20
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """A zip whose members are plain files with plain names and bounded numbers. The caller closes it.

    Raises NnmissError, naming what is wrong: no zip, too many members, or one of `member_fault`.
    """
    path = Path(path)
    if not path.is_file():
        raise NnmissError(f"{path} not found: give the zip that nnmiss_export_model wrote")
    fault = _list_fault(path)
    if fault:
        raise NnmissError(f"{path} was refused: {fault}")
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise NnmissError(f"{path} is no zip that can be read ({shown(str(error))}): copy or download it again") from None
    try:
        _check_members(archive.infolist(), path)
    except NnmissError:
        archive.close()
        raise
    return archive


def member_fault(info: zipfile.ZipInfo) -> str | None:
    """Why one member of a zip cannot be unpacked, in words; None when it can."""
    if info.orig_filename != info.filename:
        return "its name holds a NUL or another system's separator"
    if info.filename.startswith("/") or "\\" in info.filename or info.filename[1:2] == ":":
        return "its path is absolute, or has a backslash or a drive"
    if info.is_dir():
        return "it is a folder, and models list files only"
    for part in info.filename.split("/"):
        if name_fault(part):
            return f"in its path, {shown(part)}: {name_fault(part)}"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.external_attr & 0x458:  # of DOS: volume, folder, device, link
        return "it is a link or another special file"
    if info.flag_bits & 0x61:
        return "it is encrypted or a patch"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is compressed in an unusual way"
    if info.file_size > RATIO_FROM and info.file_size > MOST_RATIO * max(1, info.compress_size):
        return f"{info.compress_size:,} bytes claim to unpack to {info.file_size:,}"
    return None


def unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, size: int, digest: str) -> None:
    """Writes one member to `target`, which must not be there, never more than `size` bytes of it.

    Raises NnmissError when it has another length or sha256, or is damaged; `target` then holds a part, and is the
    caller's to remove.
    """
    hasher, written = hashlib.sha256(), 0
    try:
        with archive.open(info) as source, open(target, "xb") as file:
            while block := source.read(AT_ONCE):
                written += len(block)
                if written > size:
                    raise NnmissError(f"{shown(info.filename)} is longer than the {size:,} bytes of the manifest")
                hasher.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NnmissError(f"{shown(info.filename)} is damaged ({shown(str(error))}): copy or download the zip "
                          "again") from None
    if written != size or hasher.hexdigest() != digest:
        raise NnmissError(f"{shown(info.filename)} is not what the manifest says (its length or sha256 differs): it was "
                          "damaged or changed; copy or download the zip again")


def read_member(archive: zipfile.ZipFile, name: str, at_most: int) -> bytes:
    """One member in memory. Raises NnmissError when it is not there, damaged, or longer than `at_most` bytes."""
    try:
        with archive.open(name) as source:
            content = source.read(at_most + 1)
    except KeyError:
        raise NnmissError(f"{archive.filename} has no {name}: it is no model that nnmiss_export_model wrote") from None
    except DAMAGED as error:
        raise NnmissError(f"{archive.filename}: {name} is damaged ({shown(str(error))})") from None
    if len(content) > at_most:
        raise NnmissError(f"{archive.filename}: {name} is longer than {at_most:,} bytes")
    return content


def _list_fault(path: Path) -> str | None:
    """What is wrong with the record at a zip's end, which says how long its list is, all of which zipfile reads."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 98))  # the three records that end a zip, without a comment
        end = file.read(98)
    if end[-22:-18] != END:
        return "it is no zip, or is cut off, or something stands behind its list of contents"
    count, length = struct.unpack("<H", end[-12:-10])[0], struct.unpack("<I", end[-10:-6])[0]
    if end[-42:-38] == LOCATOR_64:
        if end[-98:-94] != END_64 or struct.unpack("<Q", end[-34:-26])[0] != size - 98:
            return "the records at its end contradict each other"
        count, length = struct.unpack("<Q", end[-66:-58])[0], struct.unpack("<Q", end[-58:-50])[0]
    if count > MOST_MEMBERS or length > LARGEST_LIST:
        return f"it claims {count:,} files in a list of {length:,} bytes; a model has at most {MOST_MEMBERS:,}"
    return None


def _check_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    if len(members) > MOST_MEMBERS:
        raise NnmissError(f"{path} was refused: it has {len(members):,} files; a model has at most {MOST_MEMBERS:,}")
    seen: dict[str, str] = {}
    for info in members:
        fault = member_fault(info)
        same = unicodedata.normalize("NFKC", info.filename).casefold()
        if not fault and same in seen:
            fault = f"it and {shown(seen[same])} have one name, or differ in case only"
        if fault:
            raise NnmissError(f"{path} was refused: {shown(info.filename)}: {fault}")
        seen[same] = info.filename
    end = 0
    for info in sorted(members, key=lambda member: member.header_offset):
        if info.header_offset < end:
            raise NnmissError(f"{path} was refused: {shown(info.filename)} overlaps another file")
        end = info.header_offset + 30 + info.compress_size
    if end > path.stat().st_size:
        raise NnmissError(f"{path} was refused: it is cut off")
