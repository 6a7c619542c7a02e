"""Event files: the checksum against the RFC's vectors, the messages against the protocol-buffer library."""

import struct

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from causalvae import tensorboard


def test_the_checksum_is_that_of_the_rfc():
    assert tensorboard.crc32c(bytes(32)) == 0x8A9136AA
    assert tensorboard.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert tensorboard.crc32c(bytes(range(32))) == 0x46DD794E
    assert tensorboard.crc32c(b"123456789") == 0xE3069283


def event_class():
    """The Event message, as TensorFlow's event.proto and summary.proto declare it, of the fields in use."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="test", syntax="proto3")
    fields = {
        "Value": [("tag", 1, kind.TYPE_STRING, 1, None), ("simple_value", 2, kind.TYPE_FLOAT, 1, None)],
        "Summary": [("value", 1, kind.TYPE_MESSAGE, 3, ".test.Value")],
        "Event": [
            ("wall_time", 1, kind.TYPE_DOUBLE, 1, None),
            ("step", 2, kind.TYPE_INT64, 1, None),
            ("file_version", 3, kind.TYPE_STRING, 1, None),
            ("summary", 5, kind.TYPE_MESSAGE, 1, ".test.Summary"),
        ],
    }
    for message, members in fields.items():
        declared = file.message_type.add(name=message)
        for name, number, type_, label, type_name in members:
            declared.field.add(name=name, number=number, type=type_, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Event"))


def read_records(data):
    while data:
        (length,), data = struct.unpack("<Q", data[:8]), data[8:]
        (crc,), data = struct.unpack("<I", data[:4]), data[4:]
        assert crc == tensorboard.masked_crc(struct.pack("<Q", length))
        yield data[:length]
        assert struct.unpack("<I", data[length : length + 4])[0] == tensorboard.masked_crc(data[:length])
        data = data[length + 4 :]


def test_scalars_come_back_through_the_protocol_buffer_library(tmp_path):
    writer = tensorboard.EventWriter(tmp_path)
    scalars = tensorboard.member_scalars({"loss": [3.5, 4.5], "kl_per_latent": [[0.25, 300.0]]})
    writer.write(123456, scalars)
    writer.close()
    (file,) = tmp_path.iterdir()
    first, second = (event_class().FromString(record) for record in read_records(file.read_bytes()))
    assert first.file_version == "brain.Event:2"
    assert second.step == 123456
    assert {v.tag: v.simple_value for v in second.summary.value} == {
        "loss/0": 3.5,
        "loss/1": 4.5,
        "kl_per_latent/0/0": 0.25,
        "kl_per_latent/0/1": 300.0,
    }
    assert np.isclose(first.wall_time, second.wall_time, atol=60)
