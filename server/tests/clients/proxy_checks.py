"""S3 and gRPC through a proxy that speaks TLS, on one name and port.

usage: proxy_checks.py PROTO_DIRECTORY HOST:PORT DATA_DIRECTORY CA_FILE

boto3 finds endpoint, credentials and CA in its environment. The node lets readers of metrics in from 127.0.0.1 alone, and
administrators from anywhere.
"""

import base64
import gzip
import hashlib
import hmac
import http.client
import io
import json
import os
import secrets
import ssl
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import boto3
import grpc
from botocore.config import Config
from botocore.exceptions import ClientError
from grpc_tools import protoc

protos, address, data_directory, ca_file = sys.argv[1:]
host, port = address.rsplit(":", 1)
tls = ssl.create_default_context(cafile=ca_file)
MIB = 1 << 20


def get(target, source="127.0.0.1", method="GET", headers={}):
    """A request that no library adorns: the answer and its body as they came."""
    connection = http.client.HTTPSConnection(host, int(port), context=tls, timeout=60, source_address=(source, 0))
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


# --- S3

config = Config(retries={"total_max_attempts": 1}, signature_version="s3v4", s3={"addressing_style": "path"})
s3 = boto3.client("s3", config=config)
s3.create_bucket(Bucket="bucket")


def returns(key, content, **more):
    s3.put_object(Bucket="bucket", Key=key, Body=content, **more)
    answer = s3.get_object(Bucket="bucket", Key=key)
    assert answer["Body"].read() == content, key
    return answer


returns("empty", b"")
for key in ["two//slashes", "a b+c%2Fd&e=f?g#h", "ümläut/日本語", "dots/../stay", "anvil.v1.AdminService/ListDisks"]:
    returns(key, key.encode())
assert {o["Key"] for o in s3.list_objects_v2(Bucket="bucket", Prefix="two//")["Contents"]} == {"two//slashes"}
# Names with '_' and '.' are signed.
metadata = {"with_underscore": "1", "with.dot": "2", "with-dash": "3"}
answered = returns("metadata", b"x", Metadata=metadata)["Metadata"]
# Caddy writes names of headers with capitals, to clients of HTTP/1.1.
assert {name.lower(): value for name, value in answered.items()} == metadata, answered

# What was stored packed comes packed, whatever the proxy would like.
packed = gzip.compress(os.urandom(100) * 1000)
returns("packed", packed, ContentEncoding="gzip")
url = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "packed"}))
answer, body = get(f"{url.path}?{url.query}")
assert (answer.status, body == packed, answer.getheader("Content-Encoding")) == (200, True, "gzip"), answer.headers
assert answer.getheader("Content-Length") == str(len(packed))

# Large bodies, in parts and in one; ranges; many at once.
large = os.urandom(20 * MIB)
s3.upload_fileobj(io.BytesIO(large), "bucket", "large")
assert s3.get_object(Bucket="bucket", Key="large", Range="bytes=5000000-5000009")["Body"].read() == large[5000000:5000010]
returns("one", large)
with ThreadPoolExecutor(16) as pool:
    list(pool.map(lambda n: returns(f"many/{n}", large[n * 1000 : n * 2000 + 1]), range(64)))
tag = s3.head_object(Bucket="bucket", Key="one")["ETag"]
try:
    s3.get_object(Bucket="bucket", Key="one", IfNoneMatch=tag)
    raise AssertionError("nothing has changed")
except ClientError as error:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 304, error
try:
    s3.put_object(Bucket="bucket", Key="one", Body=b"", IfNoneMatch="*")
    raise AssertionError("it is there")
except ClientError as error:
    assert error.response["Error"]["Code"] == "PreconditionFailed", error
print("passed: S3")

# --- What the node knows of the client

assert get("/ready")[0].status == 200 and get("/")[0].status == 200
answer, page = get("/metrics")
assert answer.status == 200 and page.endswith(b"# EOF\n"), page
answer, page = get("/metrics", source="127.0.0.2")
assert answer.status == 403 and b"AccessDenied" in page, (answer.status, page[:200])
# Nobody says himself who he is.
answer, page = get("/metrics", source="127.0.0.2", headers={"X-Forwarded-For": "127.0.0.1"})
assert answer.status == 403, answer.status
statuses = [get("/bucket/one", source="127.0.0.2")[0].status for _ in range(60)]
assert statuses[:20] == [403] * 20 and 429 in statuses, statuses
assert get("/bucket/one", source="127.0.0.3")[0].status == 403
forged = [get("/bucket/one", source="127.0.0.2", headers={"X-Forwarded-For": f"192.0.2.{n}"})[0].status for n in range(30)]
assert 429 in forged, forged
print("passed: the proxy says for whom it speaks")

# --- gRPC, on the same port

generated = tempfile.TemporaryDirectory()
files = ["anvil/v1/admin.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"]
well_known = os.path.join(os.path.dirname(sys.modules["grpc_tools"].__file__), "_proto")
arguments = ["", f"-I{protos}", f"-I{well_known}", f"--python_out={generated.name}", f"--grpc_python_out={generated.name}"]
assert protoc.main(arguments + files) == 0
sys.path.insert(0, generated.name)

from anvil.v1 import admin_pb2, admin_pb2_grpc  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402

with open(os.path.join(data_directory, "credentials.json")) as file:
    credentials = json.load(file)


def bearer():
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    now, key = int(time.time()), credentials["access_key"]
    header = {"alg": "HS256", "typ": "JWT", "kid": key}
    claims = {"iss": key, "aud": "anvil.v1.AdminService", "iat": now, "exp": now + 60, "jti": secrets.token_hex(16)}
    signed = b".".join(part(json.dumps(value).encode()) for value in (header, claims))
    key = hmac.digest(credentials["secret_key"].encode(), b"anvil admin token v1", "sha256")
    token = (signed + b"." + part(hmac.digest(key, signed, hashlib.sha256))).decode()
    return [("authorization", f"Bearer {token}")]


with open(ca_file, "rb") as file:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
admin = admin_pb2_grpc.AdminServiceStub(channel)
ask = admin_pb2.ListDisksRequest()
disks = admin.ListDisks(ask, metadata=bearer(), timeout=30).disks
assert len(disks) == 1 and disks[0].state == admin_pb2.DISK_STATE_ONLINE, disks
calls = [admin.ListDisks.future(ask, metadata=bearer(), timeout=60) for _ in range(100)]
assert all(call.result().disks[0].id == disks[0].id for call in calls)

# A refusal comes whole: status, message and details are in trailers.
try:
    admin.OfflineDisk(admin_pb2.OfflineDiskRequest(disk="/not/ä/disk"), metadata=bearer(), timeout=30)
    raise AssertionError("there is no such disk")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND and "/not/ä/disk" in error.details(), error
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info) and info.reason == "NO_SUCH_DISK", info
large = admin_pb2.OfflineDiskRequest(disk="x" * (4 << 20))
try:
    admin.OfflineDisk(large, metadata=bearer(), timeout=30)
    raise AssertionError("it is too large")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
# S3 goes on beside it.
returns("after", b"gRPC")
print("passed: AdminService with grpcio", grpc.__version__)
