"""TensorBoard's event files: its own messages in records that are written here.

Its writer takes a third of a second to import, a thread for each file, and 0.2 ms for a row of metrics, most of it for
a checksum in Python. Source: record_writer.h of TensorFlow; CRC-32C is that of RFC 3720, B.4.
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
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

LARGEST = 3.4028234e38  # the largest float32
BLOCK = 1024  # bytes of a checksum that are looked up at once
FLUSH_EVERY = 1.0  # seconds
MASK = 2**32 - 1
NUMBERS = count()  # of this process's files
DT_STRING = 7  # of TensorFlow's types.proto


class EventFile:
    """A new file in `folder`, which is made. purge_step: TensorBoard drops the points of other files from there on."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(NUMBERS)}"
        self.file, self.flushed = open(folder / name, "ab"), 0.0
        self._write(Event(file_version="brain.Event:2"))
        if purge_step is not None:
            self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, summary: Summary, step: int) -> None:
        """Add the values of a step."""
        self._write(Event(step=step, summary=summary))

    def _write(self, event: Event) -> None:
        event.wall_time = now = time.time()
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        self.file.write(length + checksum(length) + content + checksum(content))
        if now - self.flushed >= FLUSH_EVERY:
            self.file.flush()
            self.flushed = now

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def scalars(row: dict[str, float]) -> Summary:
    """Points of curves. The values are finite as float32."""
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in row.items()])


def image(name: str, png: bytes) -> Summary:
    """An image, of the content of a PNG file: grey, or red, green and blue."""
    width, height, _, colours = struct.unpack(">IIBB", png[16:26])
    shown = Summary.Image(height=height, width=width, colorspace=3 if colours else 1, encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=name, image=shown)])


def text(name: str, words: str) -> Summary:
    """A text in Markdown."""
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[words.encode()], tensor_shape=shape)
    return Summary(value=[Summary.Value(tag=f"{name}/text_summary", metadata=plugin, tensor=tensor)])


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
