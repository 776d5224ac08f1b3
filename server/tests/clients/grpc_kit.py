"""What the checks with grpcio share: code from our own .proto files, as anybody would make it, and how refusals are read."""

import os
import sys
import tempfile

import grpc
from grpc_tools import protoc

FILES = [
    "anvil/v1/admin.proto",
    "anvil/v1/auth.proto",
    "anvil/v1/bucket.proto",
    "anvil/v1/object.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
]
_generated = tempfile.TemporaryDirectory()


def generate(protos):
    """Makes the modules and lets them be imported. `grpc` is a package of its own, so its files get another place."""
    well_known = os.path.join(os.path.dirname(sys.modules["grpc_tools"].__file__), "_proto")
    out = _generated.name
    arguments = ["", f"-I{protos}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    assert protoc.main(arguments + FILES) == 0
    sys.path.insert(0, out)
    grpc.__path__.append(os.path.join(out, "grpc"))


def reason_of(error):
    """The status that a call ended with: its code and reason; the fields must agree."""
    from google.rpc import error_details_pb2, status_pb2

    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "anvil" and len(info.metadata["request_id"]) == 16, info
    return info.reason


def refused(code, reason, call, *arguments, **more):
    try:
        result = call(*arguments, **more)
        if hasattr(result, "__iter__"):
            list(result)
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert reason_of(error) == reason, (reason_of(error), error.details())
        return error.details()
    raise AssertionError(f"{call} succeeded")


def _table():
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        yield value


_TABLE = list(_table())


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _times(matrix, vector):
    total = 0
    for row in matrix:
        if vector & 1:
            total ^= row
        vector >>= 1
    return total


def joined(first, second, length):
    """The CRC32C of `length` bytes behind others."""
    matrix = [0x82F63B78] + [1 << bit for bit in range(31)]
    for _ in range(3):
        matrix = [_times(matrix, row) for row in matrix]
    while length:
        if length & 1:
            first = _times(matrix, first)
        matrix = [_times(matrix, row) for row in matrix]
        length >>= 1
    return first ^ second
