"""Writes that survive their connections and their node, with grpcio; and the same objects by S3, with boto3.

usage: grpc_resumable.py PROTO_DIRECTORY HOST:PORT begin|finish FILE

`begin` writes until 24 MiB of FILE's bytes were acknowledged and more are on their way, prints `acknowledged`, and goes on until its
node is killed. `finish` goes on at another node over the same disks, and checks all the rest.
"""

import json
import os
import queue
import sys
import threading

import boto3
import grpc
import grpc_kit
from botocore.client import Config
from grpc_kit import crc32c, joined, refused

protos, address, phase, state = sys.argv[1:]
grpc_kit.generate(protos)

from anvil.v1 import auth_pb2, auth_pb2_grpc, bucket_pb2, bucket_pb2_grpc, object_pb2, object_pb2_grpc  # noqa: E402

MIB = 1 << 20
Code = grpc.StatusCode
channel = grpc.insecure_channel(address)
auth = auth_pb2_grpc.AuthServiceStub(channel)
login = auth_pb2.GetAccessTokenRequest(
    client_id=os.environ["AWS_ACCESS_KEY_ID"], client_secret=os.environ["AWS_SECRET_ACCESS_KEY"]
)
bearer = [("authorization", "Bearer " + auth.GetAccessToken(login, timeout=10).access_token)]
buckets = bucket_pb2_grpc.BucketServiceStub(channel)
objects = object_pb2_grpc.ObjectServiceStub(channel)
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 1}))


# --- docs/GRPC.md shows these lines
class Resumable:
    """A call of BidiWrite: says what it is told to say, and hears the answers one by one."""

    def __init__(self, **first):
        self.questions = queue.SimpleQueue()
        self.say(**first)
        self.answers = objects.BidiWrite(iter(self.questions.get, None), metadata=bearer)
        self.beginning = next(self.answers).beginning

    def say(self, **part):
        self.questions.put(object_pb2.BidiWriteRequest(**part))

    def chunk(self, content, offset):
        self.say(chunk=object_pb2.WriteChunk(content=content, write_offset=offset))

    def flush(self):
        self.say(flush=object_pb2.WriteFlush())
        return next(self.answers).progress.persisted_size

    def finish(self, size, crc32c):
        self.say(finish=object_pb2.BidiWriteFinish(size=size, crc32c=crc32c))
        return next(self.answers).done


def resume(bucket_name, object_key, upload_id):
    where = dict(bucket_name=bucket_name, object_key=object_key, upload_id=upload_id)
    persisted_size = objects.QueryWrite(object_pb2.QueryWriteRequest(**where), metadata=bearer).persisted_size
    call = Resumable(resume=object_pb2.ResumeWrite(**where))
    assert call.beginning.persisted_size >= persisted_size
    return call
# --- end


def block(number):
    return (b"%08d" % number) * (MIB // 8)


BLOCKS = 40

if phase == "begin":
    buckets.CreateBucket(bucket_pb2.CreateBucketRequest(bucket_name="docs"), metadata=bearer)
    spec = object_pb2.BidiWriteSpec(bucket_name="docs", object_key="large")
    spec.metadata.content_type = "a/b"
    call = Resumable(spec=spec)
    assert call.beginning.persisted_size == 0
    for number in range(24):
        call.chunk(block(number), number * MIB)
        if number % 6 == 5:
            assert call.flush() == (number + 1) * MIB
    with open(state, "w") as file:
        json.dump(dict(upload_id=call.beginning.upload_id, acknowledged=24 * MIB), file)
    # Some more, which nobody acknowledges.
    for number in range(24, 37):
        call.chunk(block(number), number * MIB)
    print("acknowledged", flush=True)
    try:
        next(call.answers)
    except grpc.RpcError:
        print("broke off", flush=True)
    os._exit(0)

with open(state) as file:
    begun = json.load(file)

where = dict(bucket_name="docs", object_key="large", upload_id=begun["upload_id"])
told = objects.QueryWrite(object_pb2.QueryWriteRequest(**where), metadata=bearer)
assert begun["acknowledged"] <= told.persisted_size <= 37 * MIB and not told.HasField("done"), told
assert told.persisted_size % MIB == 0
refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", objects.HeadObject, object_pb2.HeadObjectRequest(
    bucket_name="docs", object_key="large"), metadata=bearer)  # fmt: skip
call = resume("docs", "large", begun["upload_id"])
first = call.beginning.persisted_size // MIB
# From before that place on: what is there is taken once.
for number in range(first - 1, BLOCKS):
    call.chunk(block(number), number * MIB)
total = 0
for number in range(BLOCKS):
    total = joined(total, crc32c(block(number)), MIB)
done = call.finish(BLOCKS * MIB, total)
assert done.size == BLOCKS * MIB and int.from_bytes(done.checksum.value, "big") == total
content = s3.get_object(Bucket="docs", Key="large")
assert content["ContentType"] == "a/b" and content["ETag"] == f'"{done.etag}"'
body = content["Body"].read()
assert len(body) == BLOCKS * MIB and all(body[at * MIB : (at + 1) * MIB] == block(at) for at in range(BLOCKS))
told = objects.QueryWrite(object_pb2.QueryWriteRequest(**where), metadata=bearer)
assert told.done == done and told.persisted_size == done.size, told
# Who did not hear the answer asks again and gets the same one.
assert resume("docs", "large", begun["upload_id"]).finish(BLOCKS * MIB, total) == done


def started(key, **said):
    return Resumable(spec=object_pb2.BidiWriteSpec(bucket_name="docs", object_key=key, **said))


def fails(code, reason, call):
    refused(code, reason, lambda: list(call.answers))


def absent(key):
    head = object_pb2.HeadObjectRequest(bucket_name="docs", object_key=key)
    refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", objects.HeadObject, head, metadata=bearer)


# Small slices, an empty object, and what is said twice.
call = started("small")
call.chunk(b"abc", 0)
assert call.flush() == 3 and call.flush() == 3
call.chunk(b"cdef", 2)
call.chunk(b"efgh", 4)
assert call.finish(8, crc32c(b"abcdefgh")).size == 8
assert s3.get_object(Bucket="docs", Key="small")["Body"].read() == b"abcdefgh"
empty = started("empty").finish(0, 0)
assert empty.size == 0 and s3.get_object(Bucket="docs", Key="empty")["Body"].read() == b""

# What is wrong is refused, and what was acknowledged stays.
call = started("wrong")
upload_id = call.beginning.upload_id
call.chunk(b"abc", 0)
assert call.flush() == 3
call.chunk(b"x", 4)
fails(Code.INVALID_ARGUMENT, "WRONG_OFFSET", call)
call = resume("docs", "wrong", upload_id)
call.chunk(b"def", 3)
call.chunk(b"xf", 4)
fails(Code.INVALID_ARGUMENT, "WRONG_OFFSET", call)
call = resume("docs", "wrong", upload_id)
assert call.beginning.persisted_size == 3
call.say(chunk=object_pb2.WriteChunk(content=b"def", write_offset=3, crc32c=1))
fails(Code.INVALID_ARGUMENT, "CHECKSUM_MISMATCH", call)
for finish, reason in (
    (object_pb2.BidiWriteFinish(size=3), "CHECKSUM_MISSING"),
    (object_pb2.BidiWriteFinish(size=4, crc32c=0), "SIZE_MISMATCH"),
    (object_pb2.BidiWriteFinish(size=3, crc32c=crc32c(b"abd")), "CHECKSUM_MISMATCH"),
):
    call = resume("docs", "wrong", upload_id)
    call.say(finish=finish)
    fails(Code.INVALID_ARGUMENT, reason, call)
call = resume("docs", "wrong", upload_id)
demand = object_pb2.Preconditions(if_match="x")
call.say(finish=object_pb2.BidiWriteFinish(size=3, crc32c=crc32c(b"abc"), preconditions=demand))
fails(Code.NOT_FOUND, "NO_SUCH_OBJECT", call)
call = resume("docs", "wrong", upload_id)
call.questions.put(None)
fails(Code.INVALID_ARGUMENT, "UNFINISHED", call)
absent("wrong")
for first in (
    object_pb2.BidiWriteRequest(flush=object_pb2.WriteFlush()),
    object_pb2.BidiWriteRequest(),
):
    refused(Code.INVALID_ARGUMENT, "UNEXPECTED_MESSAGE", objects.BidiWrite, iter([first]), metadata=bearer)

# Of two writers one goes on.
one, two = resume("docs", "wrong", upload_id), resume("docs", "wrong", upload_id)
one.chunk(b"one", 3)
two.chunk(b"two!", 3)
assert one.flush() == 6
two.say(flush=object_pb2.WriteFlush())
fails(Code.ABORTED, "OTHER_WRITER", two)
two = resume("docs", "wrong", upload_id)
assert two.beginning.persisted_size == 6
assert two.finish(6, crc32c(b"abcone")).size == 6
one.say(finish=object_pb2.BidiWriteFinish(size=6, crc32c=crc32c(b"abcone")))
assert next(one.answers).done.size == 6, "the same finish"
assert s3.get_object(Bucket="docs", Key="wrong")["Body"].read() == b"abcone"

# A cancelled write leaves nothing, in either protocol; S3 sees what is under way, and ends it too.
call = started("given-up")
upload_id = call.beginning.upload_id
call.chunk(b"abc", 0)
assert call.flush() == 3
listed = s3.list_multipart_uploads(Bucket="docs")["Uploads"]
assert [(one["Key"], one["UploadId"]) for one in listed] == [("given-up", upload_id)], listed
call.say(cancel=object_pb2.WriteCancel())
assert list(call.answers) == []
gone = object_pb2.QueryWriteRequest(bucket_name="docs", object_key="given-up", upload_id=upload_id)
refused(Code.NOT_FOUND, "NO_SUCH_UPLOAD", objects.QueryWrite, gone, metadata=bearer)
assert "Uploads" not in s3.list_multipart_uploads(Bucket="docs")
absent("given-up")
call = started("given-up")
s3.abort_multipart_upload(Bucket="docs", Key="given-up", UploadId=call.beginning.upload_id)
call.chunk(b"abc", 0)
call.say(flush=object_pb2.WriteFlush())
fails(Code.NOT_FOUND, "NO_SUCH_UPLOAD", call)

# An upload of S3 with other checksums, or with parts of its own, is none that goes on here.
foreign = s3.create_multipart_upload(Bucket="docs", Key="foreign")["UploadId"]
query = object_pb2.QueryWriteRequest(bucket_name="docs", object_key="foreign", upload_id=foreign)
refused(Code.FAILED_PRECONDITION, "NOT_RESUMABLE", objects.QueryWrite, query, metadata=bearer)
s3.abort_multipart_upload(Bucket="docs", Key="foreign", UploadId=foreign)

# More writers than a core gathers at once: all come to their end.
calls = [started(f"crowd/{number}") for number in range(20)]
for call in calls:
    call.chunk(b"x" * 100_000, 0)
flushes = [threading.Thread(target=call.flush) for call in calls]
for flush in flushes:
    flush.start()
for flush in flushes:
    flush.join(60)
    assert not flush.is_alive()
print("passed: resumable writes with grpcio", grpc.__version__)
