"""TensorBoard's event files, without its own writer.

That takes a third of a second to import and 0.2 ms for a row of metrics, most of it for a checksum in Python.
Source: event.proto and summary.proto of TensorBoard, record_writer.h of TensorFlow; CRC-32C is that of RFC 3720, B.4.
"""

import os
import socket
import struct
import time
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 3.4028234e38  # the largest float32
BLOCK = 1024  # bytes of a checksum that are looked up at once
FLUSH_EVERY = 1.0  # seconds
MASK = 2**32 - 1
NUMBERS = count()  # of this process's files


class EventFile:
    """A new file in `folder`, which is made. purge_step: TensorBoard drops the points of other files from there on."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(NUMBERS)}"
        self.file, self.flushed = open(folder / name, "ab"), 0.0
        self._write(field(3, b"brain.Event:2"))
        if purge_step is not None:
            start = field(7, b"\x08\x01")  # a session's start
            self._write(b"\x10" + varint(purge_step) + start)

    def add(self, values: bytes, step: int) -> None:
        """Add values (`scalar`, `image`, `text`, one after another) of a step."""
        self._write(b"\x10" + varint(step) + field(5, values))

    def _write(self, content: bytes) -> None:
        now = time.time()
        event = b"\x09" + struct.pack("<d", now) + content
        self.file.write(header(len(event)) + event + checksum(event))
        if now - self.flushed >= FLUSH_EVERY:
            self.file.flush()
            self.flushed = now

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def scalar(name: str, value: float) -> bytes:
    """A point of a curve. value: finite as float32."""
    return scalar_head(name) + struct.pack("<f", value)


@cache
def scalar_head(name: str) -> bytes:
    tag = field(1, name.encode())
    return b"\x0a" + varint(len(tag) + 5) + tag + b"\x15"


def image(name: str, png: bytes) -> bytes:
    """An image, of the content of a PNG file: grey, or red, green and blue."""
    width, height, _, colours = struct.unpack(">IIBB", png[16:26])
    sizes = b"\x08" + varint(height) + b"\x10" + varint(width) + b"\x18" + varint(3 if colours else 1)
    return field(1, field(1, name.encode()) + field(4, sizes + field(4, png)))


def text(name: str, words: str) -> bytes:
    """A text in Markdown."""
    plugin = field(9, field(1, field(1, b"text")))
    tensor = b"\x08\x07" + field(2, field(2, b"\x08\x01")) + field(8, words.encode())  # one string
    return field(1, field(1, f"{name}/text_summary".encode()) + field(8, tensor) + plugin)


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer: bytes, a text or a message."""
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """A number of at least 0, seven bits a byte."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


@cache
def header(size: int) -> bytes:
    """What precedes a record of this size."""
    length = struct.pack("<Q", size)
    return length + checksum(length)


def checksum(content: bytes) -> bytes:
    """TensorFlow's masked CRC-32C."""
    crc = crc32c(content)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & MASK)


def crc32c(content: bytes) -> int:
    """The CRC-32C of bytes. It is linear: a byte's part depends on its value and its distance from the end only."""
    table, data, crc = crc_parts(), np.frombuffer(content, np.uint8), MASK
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK].copy()
        size = min(4, len(block))
        block[:size] ^= np.frombuffer(struct.pack("<I", crc), np.uint8)[:size]
        crc = int(np.bitwise_xor.reduce(table[-len(block) :][ROWS[: len(block)], block])) ^ crc >> 8 * size
    return crc ^ MASK


ROWS = np.arange(BLOCK)


@cache
def crc_parts() -> NDArray[np.uint32]:
    """The part of each byte (columns) at each place (rows) of a block, the last row for the last byte."""
    bits = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        bits = bits >> 1 ^ (bits & 1) * np.uint32(0x82F63B78)
    rows = [bits]
    while len(rows) < BLOCK:
        rows.append(bits[rows[-1] & 255] ^ rows[-1] >> 8)
    return np.stack(rows[::-1])
