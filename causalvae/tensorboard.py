"""TensorBoard event files without TensorFlow: scalars only, in the public TFRecord and Event formats.

A record is: length (uint64), masked CRC-32C of the length, the bytes, masked CRC-32C of the bytes. An Event
message holds wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5; a Summary holds
value = 1, each with tag = 1 (string) and simple_value = 2 (float).
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np


class EventWriter:
    """Appends scalars to a new event file in `folder`; TensorBoard merges the files of a resumed run."""

    def __init__(self, folder: str | pathlib.Path):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**6}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("wb")
        self.file.write(record(_field(1, time.time()) + _field(3, b"brain.Event:2")))
        self.file.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds one value per tag at `step`, and flush."""
        values = [_field(1, _field(1, tag.encode()) + _field(2, np.float32(value))) for tag, value in scalars.items()]
        self.file.write(record(_field(1, time.time()) + _field(2, int(step)) + _field(5, b"".join(values))))
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def member_scalars(metrics: Mapping[str, list]) -> dict[str, float]:
    """Returns 'name/member' -> value, of metrics name -> [M] or [M, d] (then 'name/member/latent')."""
    flat = {}
    for name, values in metrics.items():
        for index, value in np.ndenumerate(np.asarray(values)):
            flat["/".join([name, *map(str, index)])] = float(value)
    return flat


# --- the formats -----------------------------------------------------------------------------------------


def record(data: bytes) -> bytes:
    """Returns one TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def _field(number: int, value: bytes | float | np.float32) -> bytes:
    """One protocol-buffer field: bytes (wire type 2), int (varint, 0), float (double, 1), np.float32 (5)."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if isinstance(value, np.float32):  # pyright: ignore[reportArgumentType]  (numpy's stubs make it an alias)
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, float):
        return _varint(number << 3 | 1) + struct.pack("<d", value)
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # the Castagnoli polynomial, reversed
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Returns the CRC-32C (Castagnoli), RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """Returns the rotated and offset CRC that TFRecords store."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
