#!/usr/bin/env python3
"""Safetensors files as the tests need them: read, changed, damaged, made by hand. For the tests that are scripts:

checkpoints.py about FILE KEY           prints a value of the file's metadata, or nothing
checkpoints.py change FILE KEY VALUE    writes it with this in its metadata, as somebody could
"""
import json
import struct
import sys
import zlib


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def load(path):
    """The header, as an object, and the data of a file. The digest is left out: older files have the CRC-32 alone."""
    content = read(path)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.get("__metadata__", {}).pop("xxh3_128", None)
    return header, content[8 + length :]


def about(path):
    """The metadata of a file."""
    return load(path)[0]["__metadata__"]


def text_of(header):
    """The text of a header, which is an object, if it is no text yet."""
    return header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()


def pack(header, data=b"", length=None):
    """The bytes of a file; `length` is what it says of the header's, if not the truth."""
    text = text_of(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def seal(header, data):
    """The bytes of a file with a right CRC-32, so that the checks behind it are reached."""
    whole = pack({**header, "__metadata__": {**header["__metadata__"], "crc32": "00000000"}}, data)
    return whole.replace(b'"crc32":"00000000"', b'"crc32":"%08x"' % zlib.crc32(whole))


def change(path, to, pack=seal, **changes):
    """Writes `path` as `to` with other metadata (None: without that key)."""
    header, data = load(path)
    metadata = {**header["__metadata__"], **changes}
    header["__metadata__"] = {key: value for key, value in metadata.items() if value is not None}
    write(to, pack(header, data))


if __name__ == "__main__":
    what, file, key, *value = sys.argv[1:]
    if what == "about":
        print(about(file).get(key, ""))
    else:
        change(file, file, **{key: value[0]})
