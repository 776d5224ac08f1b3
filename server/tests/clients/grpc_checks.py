"""Calls anvil.v1.AdminService with grpcio, generated from our own .proto files as anybody would.

usage: grpc_checks.py PROTO_DIRECTORY HOST:PORT DATA_DIRECTORY
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time

import grpc
import grpc_kit
from grpc_kit import refused

protos, address, data_directory = sys.argv[1:]
grpc_kit.generate(protos)

from anvil.v1 import admin_pb2, admin_pb2_grpc  # noqa: E402

with open(os.path.join(data_directory, "credentials.json")) as file:
    credentials = json.load(file)
access_key, secret = credentials["access_key"], credentials["secret_key"]


# --- docs/GRPC.md shows these lines
def token(access_key, secret):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    now = int(time.time())
    header = {"alg": "HS256", "typ": "JWT", "kid": access_key}
    claims = {"iss": access_key, "aud": "anvil.v1.AdminService", "iat": now, "exp": now + 60, "jti": secrets.token_hex(16)}
    signed = b".".join(part(json.dumps(value).encode()) for value in (header, claims))
    key = hmac.digest(secret.encode(), b"anvil admin token v1", "sha256")
    return (signed + b"." + part(hmac.digest(key, signed, hashlib.sha256))).decode()


def bearer():
    return [("authorization", f"Bearer {token(access_key, secret)}")]


# --- end


channel = grpc.insecure_channel(address)
admin = admin_pb2_grpc.AdminServiceStub(channel)

# What is there.
disks = admin.ListDisks(admin_pb2.ListDisksRequest(), metadata=bearer(), timeout=30).disks
assert len(disks) == 1 and len(disks[0].id) == 32, disks
assert disks[0].state == admin_pb2.DISK_STATE_ONLINE and disks[0].path.startswith("/"), disks
classes = admin.ListStorageClasses(admin_pb2.ListStorageClassesRequest(), metadata=bearer()).storage_classes
assert [(c.name, c.data_shards, c.parity_shards) for c in classes] == [("STANDARD", 1, 0), ("COLD", 1, 0)], classes

status = admin.RepairStatus(admin_pb2.RepairStatusRequest(), metadata=bearer())
assert (status.failed_attempts, list(status.remaining)) == (0, []) and not status.HasField("remaining_seconds"), status

# Who may ask.
ask = admin_pb2.ListDisksRequest()
refused(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", admin.ListDisks, ask)
for wrong in (secret, token(access_key, "another-secret"), token("another-key", secret)):
    metadata = [("authorization", f"Bearer {wrong}")]
    said = refused(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_WRONG", admin.ListDisks, ask, metadata=metadata)
    assert secret not in said
forwarded = bearer() + [("x-forwarded-for", "192.0.2.1")]
refused(grpc.StatusCode.PERMISSION_DENIED, "ADMIN_FROM_ELSEWHERE", admin.ListDisks, ask, metadata=forwarded)

# What cannot be.
nobody = admin_pb2.OfflineDiskRequest(disk="0" * 32)
refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DISK", admin.OfflineDisk, nobody, metadata=bearer())
nonsense = admin_pb2.OfflineDiskRequest(disk="relative/ä")
refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DISK_NAME", admin.OfflineDisk, nonsense, metadata=bearer())
bucket = admin_pb2.UpdateBucketRequest(bucket="not-there", storage_class="COLD")
refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_BUCKET", admin.UpdateBucket, bucket, metadata=bearer())
bucket = admin_pb2.UpdateBucketRequest(bucket="not-there", storage_class="GLACIER")
said = refused(grpc.StatusCode.INVALID_ARGUMENT, "NO_SUCH_STORAGE_CLASS", admin.UpdateBucket, bucket, metadata=bearer())
assert "STANDARD, COLD" in said, said
large = admin_pb2.OfflineDiskRequest(disk="x" * (4 << 20))
refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", admin.OfflineDisk, large, metadata=bearer())
unknown = channel.unary_unary("/anvil.v1.AdminService/Nothing", request_serializer=bytes, response_deserializer=bytes)
refused(grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD", unknown, b"", metadata=bearer())
long = admin_pb2.OfflineDiskRequest(disk="/" + "x" * 10000)
gzip = {"compression": grpc.Compression.Gzip, "metadata": bearer()}
refused(grpc.StatusCode.NOT_FOUND, "NO_SUCH_DISK", admin.OfflineDisk, long, **gzip)
deflate = {"compression": grpc.Compression.Deflate, "metadata": bearer()}
refused(grpc.StatusCode.UNIMPLEMENTED, "WRONG_ENCODING", admin.OfflineDisk, long, **deflate)

# Many calls on one channel, side by side.
calls = [admin.ListDisks.future(ask, metadata=bearer()) for _ in range(200)]
assert all(call.result().disks[0].id == disks[0].id for call in calls)
print("passed: AdminService with grpcio", grpc.__version__)
