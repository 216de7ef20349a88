"""TensorBoard reads what dl-run writes, though dl-run does not use TensorBoard's writer."""

import struct

import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_ndarray

from dlrun.output import events


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 300, events.BLOCK, events.BLOCK + 2, 5000])
def test_checksums_are_tensorboards(size):
    content = np.random.default_rng(size).bytes(size)
    assert events.checksum(content) == struct.pack("<I", masked_crc32c(content))


def test_records_are_tensorboards(tmp_path):
    Image.fromarray(np.zeros((3, 7, 3), np.uint8)).save(tmp_path / "a.png")
    file = events.EventFile(tmp_path / "board", purge_step=300)
    row = {"train/loss": 0.25, "lr": 1e-3, "ä": -events.LARGEST}
    file.add(events.scalars(row), 2**40)
    file.add(events.text("config", "# a: ä"), 0)
    file.add(events.image("plots/a", (tmp_path / "a.png").read_bytes()), 7)
    file.close()
    (path,) = (tmp_path / "board").iterdir()
    content, found = path.read_bytes(), []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        record, content = content[12 : 12 + size], content[16 + size :]
        found.append(Event.FromString(record))
    assert found[0].file_version == "brain.Event:2" and found[1].step == 300 and found[1].session_log.status == 1
    assert found[2].step == 2**40 and all(event.wall_time > 1e9 for event in found)
    assert {v.tag: v.simple_value for v in found[2].summary.value} == {k: np.float32(v) for k, v in row.items()}
    (words,), (picture,) = found[3].summary.value, found[4].summary.value
    assert words.tag == "config/text_summary" and words.metadata.plugin_data.plugin_name == "text"
    assert make_ndarray(words.tensor).tolist() == ["# a: ä".encode()]
    assert (picture.image.height, picture.image.width, picture.image.colorspace) == (3, 7, 3)
    assert picture.image.encoded_image_string == (tmp_path / "a.png").read_bytes()
