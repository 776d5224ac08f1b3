"""Buckets and objects by gRPC, with grpcio and code from our own .proto files; and the same objects by S3, with boto3.

usage: grpc_objects.py PROTO_DIRECTORY HOST:PORT NODE_PID
"""

import base64
import hashlib
import os
import sys
import threading
import time
import zlib

import boto3
import grpc
import grpc_kit
from botocore.client import Config
from botocore.exceptions import ClientError
from grpc_kit import crc32c, joined, reason_of, refused

protos, address, pid = sys.argv[1:]
grpc_kit.generate(protos)

from anvil.v1 import auth_pb2, auth_pb2_grpc, bucket_pb2, bucket_pb2_grpc, object_pb2, object_pb2_grpc  # noqa: E402
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc.reflection.v1 import reflection_pb2, reflection_pb2_grpc  # noqa: E402
from grpc.reflection.v1alpha import reflection_pb2 as alpha_pb2  # noqa: E402
from grpc.reflection.v1alpha import reflection_pb2_grpc as alpha_pb2_grpc  # noqa: E402

MIB = 1 << 20
Code = grpc.StatusCode
access_key, secret_key = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
s3 = boto3.client("s3", config=Config(retries={"max_attempts": 1}))

# --- docs/GRPC.md shows these lines
channel = grpc.insecure_channel(address)


def token(*scopes):
    auth = auth_pb2_grpc.AuthServiceStub(channel)
    request = auth_pb2.GetAccessTokenRequest(client_id=access_key, client_secret=secret_key, scopes=scopes)
    return [("authorization", "Bearer " + auth.GetAccessToken(request, timeout=10).access_token)]


bearer = token()
buckets = bucket_pb2_grpc.BucketServiceStub(channel)
objects = object_pb2_grpc.ObjectServiceStub(channel)

buckets.CreateBucket(bucket_pb2.CreateBucketRequest(bucket_name="docs"), metadata=bearer)
put = object_pb2.PutObjectRequest(bucket_name="docs", object_key="hello.txt", content=b"Hello, gRPC!")
put.metadata.content_type = "text/plain"
etag = objects.PutObject(put, metadata=bearer, timeout=30).etag


def read(bucket_name, object_key, offset=0, length=0):
    request = object_pb2.GetObjectRequest(bucket_name=bucket_name, object_key=object_key, offset=offset, length=length)
    answer = objects.GetObject(request, metadata=bearer)
    object = next(answer).beginning.object
    return object, b"".join(part.chunk.content for part in answer)


object, content = read("docs", "hello.txt")
assert (content, object.etag, object.metadata.content_type) == (b"Hello, gRPC!", etag, "text/plain")
# --- end


def stub_call(name, **fields):
    request = getattr(object_pb2, f"{name}Request")(**fields)
    return getattr(objects, name)(request, metadata=bearer, timeout=60)


def named(key, **more):
    return dict(bucket_name="docs", object_key=key, **more)


def not_there(key):
    refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", stub_call, "HeadObject", **named(key))


def condition(**fields):
    return object_pb2.Preconditions(**fields)


def write(spec, chunks, finish, message=object_pb2.WriteObjectRequest):
    yield message(spec=spec)
    for chunk in chunks:
        yield message(chunk=object_pb2.Chunk(content=chunk))
    if finish:
        yield message(finish=finish)


def write_object(key, content, chunk_bytes=256 << 10, **fields):
    spec = object_pb2.WriteObjectSpec(**named(key), size=len(content), **fields)
    chunks = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    finish = object_pb2.WriteFinish(size=len(content), crc32c=crc32c(content))
    return objects.WriteObject(write(spec, chunks, finish), metadata=bearer, timeout=60)


# What comes by one protocol goes by the other.
found = s3.get_object(Bucket="docs", Key="hello.txt", ChecksumMode="ENABLED")
assert found["Body"].read() == b"Hello, gRPC!" and found["ETag"] == f'"{etag}"' and found["ContentType"] == "text/plain"
assert etag == hashlib.md5(b"Hello, gRPC!").hexdigest()
s3.put_object(Bucket="docs", Key="by-s3", Body=b"from S3" * 1000, Metadata={"a": "b"}, ChecksumAlgorithm="CRC32")
object, content = read("docs", "by-s3")
assert content == b"from S3" * 1000 and dict(object.metadata.user) == {"a": "b"}
assert object.checksum.algorithm == object_pb2.CHECKSUM_ALGORITHM_CRC32
assert int.from_bytes(object.checksum.value, "big") == zlib.crc32(content)
assert object.etag == s3.head_object(Bucket="docs", Key="by-s3")["ETag"].strip('"') and object.storage_class == "STANDARD"
head = stub_call("HeadObject", **named("by-s3")).object
assert head == object and abs(head.last_modified.seconds - time.time()) < 60, head

# Streams of all lengths, with the checksum that was asked for.
for length in (0, 1, 65_536, 65_537, 3 * MIB + 17):
    content = (b"0123456789abcdef" * (length // 16 + 1))[:length]
    wanted = object_pb2.CHECKSUM_ALGORITHM_SHA256
    stored = write_object(f"stream-{length}", content, checksum_algorithm=wanted)
    assert stored.checksum.value == hashlib.sha256(content).digest()
    assert (stored.etag, stored.size) == (hashlib.md5(content).hexdigest(), length)
    object, came = read("docs", f"stream-{length}")
    assert came == content and (object.etag, object.generation) == (stored.etag, stored.generation)
    assert s3.get_object(Bucket="docs", Key=f"stream-{length}")["Body"].read() == content
whole = content
for offset, length in ((0, 1), (5, 70_000), (-10, 0), (-70_000, 65_536), (MIB - 1, 2), (3 * MIB + 17, 0), (0, 1 << 60)):
    start = max(0, len(whole) + offset) if offset < 0 else offset
    expected = whole[start:] if length == 0 else whole[start : start + length]
    request = object_pb2.GetObjectRequest(**named(f"stream-{len(whole)}"), offset=offset, length=length)
    beginning, *chunks = objects.GetObject(request, metadata=bearer)
    assert (beginning.beginning.offset, beginning.beginning.length) == (start, len(expected))
    assert b"".join(part.chunk.content for part in chunks) == expected, (offset, length)
    small = [part.chunk for part in chunks if len(part.chunk.content) <= 70_000]
    assert all(chunk.crc32c == crc32c(chunk.content) for chunk in small)
refused(Code.OUT_OF_RANGE, "OUT_OF_RANGE", stub_call, "GetObject", **named("stream-1"), offset=2)

# Nothing is there that was not finished, or is not what was promised.
spec = object_pb2.WriteObjectSpec(**named("bad"), size=4)
good = object_pb2.WriteFinish(size=4, crc32c=crc32c(b"abcd"))


def refused_write(reason, chunks, finish, spec=spec):
    refused(Code.INVALID_ARGUMENT, reason, objects.WriteObject, write(spec, chunks, finish), metadata=bearer, timeout=30)
    not_there("bad")


refused_write("UNFINISHED", [b"abcd"], None)
refused_write("UNFINISHED", [b"ab"], None)
refused_write("SIZE_MISMATCH", [b"abc"], good)
refused_write("SIZE_MISMATCH", [b"abcde"], good)
refused_write("SIZE_MISMATCH", [b"abcd", b"e"], good)
refused_write("CHECKSUM_MISMATCH", [b"abce"], good)
refused_write("CHECKSUM_MISSING", [b"abcd"], object_pb2.WriteFinish(size=4))
refused_write("UNEXPECTED_MESSAGE", [b"abcd"], good, spec=None)
wrong = object_pb2.Checksum(algorithm=object_pb2.CHECKSUM_ALGORITHM_SHA1, value=bytes(20))
spec.checksum_algorithm = object_pb2.CHECKSUM_ALGORITHM_SHA1
refused_write("CHECKSUM_MISMATCH", [b"abcd"], object_pb2.WriteFinish(size=4, crc32c=crc32c(b"abcd"), checksum=wrong))
spec.checksum_algorithm = object_pb2.CHECKSUM_ALGORITHM_SHA256
refused_write("INVALID_CHECKSUM", [b"abcd"], object_pb2.WriteFinish(size=4, crc32c=crc32c(b"abcd"), checksum=wrong))


def bad_chunk():
    yield object_pb2.WriteObjectRequest(spec=object_pb2.WriteObjectSpec(**named("bad"), size=4))
    yield object_pb2.WriteObjectRequest(chunk=object_pb2.Chunk(content=b"abcd", crc32c=1))
    yield object_pb2.WriteObjectRequest(finish=good)


refused(Code.INVALID_ARGUMENT, "CHECKSUM_MISMATCH", objects.WriteObject, bad_chunk(), metadata=bearer)
put = dict(named("bad"), content=b"x", checksum=wrong)
refused(Code.INVALID_ARGUMENT, "CHECKSUM_MISMATCH", stub_call, "PutObject", **put)
not_there("bad")

# Conditions, by tag and by generation.
first = stub_call("PutObject", **named("c"), content=b"1", preconditions=condition(if_generation_match=0))
again = dict(named("c"), content=b"2")
for fails in (
    condition(if_generation_match=0),
    condition(if_none_match="*"),
    condition(if_match="0" * 32),
    condition(if_generation_match=first.generation + 1),
):
    refused(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", stub_call, "PutObject", **again, preconditions=fails)
second = stub_call("PutObject", **again, preconditions=condition(if_generation_match=first.generation))
assert second.generation > first.generation
stub_call("PutObject", **again, preconditions=condition(if_match=second.etag))
third = stub_call("HeadObject", **named("c"), preconditions=condition(if_match=second.etag)).object
refused(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", stub_call, "DeleteObject", **named("c"),
        preconditions=condition(if_generation_match=second.generation))  # fmt: skip
for unchanged in (condition(if_none_match=third.etag), condition(if_generation_not_match=third.generation)):
    refused(Code.FAILED_PRECONDITION, "NOT_MODIFIED", stub_call, "GetObject", **named("c"), preconditions=unchanged)
refused(Code.INVALID_ARGUMENT, "INVALID_PRECONDITION", stub_call, "PutObject", **again,
        preconditions=condition(if_generation_not_match=1))  # fmt: skip
refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", stub_call, "PutObject", **dict(again, object_key="none"),
        preconditions=condition(if_match="x"))  # fmt: skip
stub_call("DeleteObject", **named("c"), preconditions=condition(if_generation_match=third.generation))
not_there("c")
stub_call("DeleteObject", **named("c"))

# Copies, and what is said of an object.
copied = stub_call("CopyObject", source_bucket_name="docs", source_object_key="by-s3", **named("copy"))
assert read("docs", "copy")[1] == b"from S3" * 1000
copy = dict(source_bucket_name="docs", source_object_key="by-s3", **named("copy"))
refused(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", stub_call, "CopyObject", **copy,
        source_preconditions=condition(if_match="x"))  # fmt: skip
refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", stub_call, "CopyObject", **dict(copy, source_object_key="none"))
said = object_pb2.ObjectMetadata(content_type="a/b", user={"new": "1"})
current = condition(if_generation_match=copied.generation)
updated = stub_call("UpdateMetadata", **named("copy"), metadata=said, preconditions=current).object
assert updated == stub_call("HeadObject", **named("copy")).object and updated.metadata == said
assert (updated.etag, updated.size) == (copied.etag, copied.size) and updated.generation > copied.generation
assert s3.head_object(Bucket="docs", Key="copy")["Metadata"] == {"new": "1"}
refused(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", stub_call, "UpdateMetadata", **named("copy"),
        metadata=said, preconditions=current)  # fmt: skip

# Lists: pages on one stream, common prefixes, and where to go on.
with_keys = [f"list/{number:04}" for number in range(1203)] + ["list/sub/a", "list/sub/b"]
puts = [objects.PutObject.future(object_pb2.PutObjectRequest(**named(key)), metadata=bearer) for key in with_keys]
assert all(put.result().size == 0 for put in puts)
pages = list(stub_call("ListObjects", bucket_name="docs", prefix="list/"))
assert [object.object_key for page in pages for object in page.objects] == with_keys and len(pages) == 2
pages = list(stub_call("ListObjects", bucket_name="docs", prefix="list/", delimiter="/", start_after="list/1200"))
assert [object.object_key for object in pages[0].objects] == ["list/1201", "list/1202"], pages
assert list(pages[0].common_prefixes) == ["list/sub/"] and pages[0].next_page_token == ""
(page,) = stub_call("ListObjects", bucket_name="docs", prefix="list/", max_keys=3)
assert len(page.objects) == 3 and page.objects[0].etag == hashlib.md5(b"").hexdigest()
(page,) = stub_call("ListObjects", bucket_name="docs", prefix="list/", max_keys=1, page_token=page.next_page_token)
assert page.objects[0].object_key == "list/0003"
refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN", stub_call, "ListObjects", bucket_name="docs", page_token="x")

# Many at once.
batch = ["hello.txt", "none", "by-s3", f"stream-{len(whole)}"]
answers = list(stub_call("BatchGet", bucket_name="docs", object_keys=batch))
assert [answer.index for answer in answers] == [0, 1, 2, 3]
assert answers[0].object.content == b"Hello, gRPC!" and answers[0].object.object.etag == etag
assert answers[2].object.crc32c == crc32c(b"from S3" * 1000)
assert [answers[at].error.code for at in (1, 3)] == [Code.NOT_FOUND.value[0], Code.FAILED_PRECONDITION.value[0]]
many = list(stub_call("BatchGet", bucket_name="docs", object_keys=with_keys[:1000]))
assert len(many) == 1000 and all(answer.HasField("object") for answer in many)
refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST", stub_call, "BatchGet", bucket_name="docs", object_keys=with_keys)
doomed = [object_pb2.ObjectToDelete(object_key=key) for key in with_keys[:999]]
doomed.append(object_pb2.ObjectToDelete(object_key="hello.txt", preconditions=condition(if_match="x")))
outcomes = stub_call("DeleteObjects", bucket_name="docs", objects=doomed).outcomes
assert [outcome.object_key for outcome in outcomes] == [one.object_key for one in doomed]
assert not any(outcome.HasField("error") for outcome in outcomes[:-1])
assert outcomes[-1].error.code == Code.FAILED_PRECONDITION.value[0]
assert s3.list_objects_v2(Bucket="docs", Prefix="list/")["KeyCount"] == len(with_keys) - 999

# Uploads in parts, which either protocol begins, fills and finishes.
part = bytes(range(256)) * (5 * MIB // 256)


def upload_part(key, upload_id, number, content):
    spec = object_pb2.UploadPartSpec(**named(key), upload_id=upload_id, part_number=number, size=len(content))
    chunks = [content[at : at + MIB] for at in range(0, len(content), MIB)]
    block = crc32c(content[:MIB])
    total = 0
    for chunk in chunks:
        total = joined(total, block if len(chunk) == MIB else crc32c(chunk), len(chunk))
    finish = object_pb2.WriteFinish(size=len(content), crc32c=total)
    return objects.UploadPart(write(spec, chunks, finish, object_pb2.UploadPartRequest), metadata=bearer, timeout=60)


begun = stub_call("InitiateMultipartUpload", **named("parts"), metadata=said)
one = upload_part("parts", begun.upload_id, 1, part)
assert one.etag == hashlib.md5(part).hexdigest()
two = s3.upload_part(Bucket="docs", Key="parts", UploadId=begun.upload_id, PartNumber=2, Body=b"tail")
listed = stub_call("ListParts", **named("parts"), upload_id=begun.upload_id, page_size=1)
assert [part.part_number for part in listed.parts] == [1] and listed.parts[0].size == 5 * MIB
rest = stub_call("ListParts", **named("parts"), upload_id=begun.upload_id, page_token=listed.next_page_token)
assert [part.part_number for part in rest.parts] == [2] and rest.next_page_token == ""
open_uploads = stub_call("ListMultipartUploads", bucket_name="docs").uploads
assert [(one.object_key, one.upload_id) for one in open_uploads] == [("parts", begun.upload_id)]
of_parts = [object_pb2.UploadedPart(part_number=1, etag=one.etag), object_pb2.UploadedPart(part_number=2, etag=two["ETag"])]
complete = dict(named("parts"), upload_id=begun.upload_id)
refused(Code.INVALID_ARGUMENT, "INVALID_PART_ORDER", stub_call, "CompleteMultipartUpload", **complete, parts=of_parts[::-1])
refused(Code.FAILED_PRECONDITION, "PRECONDITION_FAILED", stub_call, "CompleteMultipartUpload", **complete, parts=of_parts,
        preconditions=condition(if_generation_match=7))  # fmt: skip
done = stub_call("CompleteMultipartUpload", **complete, parts=of_parts)
assert done.etag == s3.head_object(Bucket="docs", Key="parts")["ETag"].strip('"') and done.etag.endswith("-2")
object, content = read("docs", "parts")
assert content == part + b"tail" and object.parts_count == 2 and object.metadata == said
begun = s3.create_multipart_upload(Bucket="docs", Key="parts-2", ChecksumAlgorithm="CRC32C")["UploadId"]
one = upload_part("parts-2", begun, 1, b"short")
assert one.checksum.algorithm == object_pb2.CHECKSUM_ALGORITHM_CRC32C
assert int.from_bytes(one.checksum.value, "big") == crc32c(b"short")
by_s3 = {"PartNumber": 1, "ETag": one.etag, "ChecksumCRC32C": base64.b64encode(one.checksum.value).decode()}
s3.complete_multipart_upload(Bucket="docs", Key="parts-2", UploadId=begun, MultipartUpload={"Parts": [by_s3]})
assert read("docs", "parts-2")[1] == b"short"
begun = stub_call("InitiateMultipartUpload", **named("gone")).upload_id
stub_call("AbortMultipartUpload", **named("gone"), upload_id=begun)
refused(Code.NOT_FOUND, "NO_SUCH_UPLOAD", upload_part, "gone", begun, 1, b"x")
refused(Code.NOT_FOUND, "NO_SUCH_UPLOAD", stub_call, "AbortMultipartUpload", **named("gone"), upload_id="x")
refused(Code.INVALID_ARGUMENT, "INVALID_PART", upload_part, "parts", "0" * 32, 10_001, b"x")

# Many ranges of one object on one stream, some of which cannot be.
wanted = {number: (number * 37_000, 64 << 10) for number in range(80)}
wanted[1000], wanted[1001], wanted[1002] = (-5, 0), (0, 0), (len(whole) + 1, 1)


def asks():
    spec = object_pb2.BidiReadSpec(**named(f"stream-{len(whole)}"))
    ranges = [object_pb2.ReadRange(read_id=id, offset=at[0], length=at[1]) for id, at in wanted.items()]
    yield object_pb2.BidiReadRequest(spec=spec, ranges=ranges[:3])
    time.sleep(0.2)
    yield object_pb2.BidiReadRequest(ranges=ranges[3:])


came, ended = {}, {}
answers = objects.BidiRead(asks(), metadata=bearer, timeout=60)
assert next(answers).object.size == len(whole)
for answer in answers:
    if answer.HasField("end"):
        ended[answer.end.read_id] = answer.end.error.code
        continue
    chunk = answer.chunk
    offset = max(0, wanted[chunk.read_id][0]) if wanted[chunk.read_id][0] >= 0 else len(whole) + wanted[chunk.read_id][0]
    before = came.setdefault(chunk.read_id, b"")
    assert chunk.offset == offset + len(before)
    came[chunk.read_id] = before + chunk.content
    assert len(chunk.content) > 70_000 or chunk.crc32c == crc32c(chunk.content)
assert ended == {id: Code.OUT_OF_RANGE.value[0] if id == 1002 else 0 for id in wanted}, ended
assert came[1000] == whole[-5:] and came[1001] == whole
assert all(came[id] == whole[at : at + count] for id, (at, count) in wanted.items() if id < 80)


def bidi(*messages):
    return list(objects.BidiRead(iter(messages), metadata=bearer, timeout=30))


spec = object_pb2.BidiReadSpec(**named("hello.txt"))
double = [object_pb2.ReadRange(read_id=1), object_pb2.ReadRange(read_id=1)]
refused(Code.INVALID_ARGUMENT, "READ_ID_IN_USE", bidi, object_pb2.BidiReadRequest(spec=spec, ranges=double))
crowd = [object_pb2.ReadRange(read_id=id) for id in range(101)]
refused(Code.RESOURCE_EXHAUSTED, "TOO_MANY_RANGES", bidi, object_pb2.BidiReadRequest(spec=spec, ranges=crowd))
refused(Code.INVALID_ARGUMENT, "UNEXPECTED_MESSAGE", bidi, object_pb2.BidiReadRequest(ranges=double))
refused(Code.INVALID_ARGUMENT, "UNEXPECTED_MESSAGE", bidi, *[object_pb2.BidiReadRequest(spec=spec)] * 2)
spec.object_key = "none"
refused(Code.NOT_FOUND, "NO_SUCH_OBJECT", bidi, object_pb2.BidiReadRequest(spec=spec))


# 64 MiB both ways, and what the node holds meanwhile; a reader that takes its time; calls that are taken back.
def held():
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) << 10


block = os.urandom(MIB)
block_sum, total, peak = crc32c(block), 0, [held()]
for _ in range(64):
    total = joined(total, block_sum, MIB)


def watched(messages):
    for message in messages:
        peak[0] = max(peak[0], held())
        yield message


spec = object_pb2.WriteObjectSpec(**named("large"), size=64 * MIB)
finish = object_pb2.WriteFinish(size=64 * MIB, crc32c=total)
stored = objects.WriteObject(write(spec, [block] * 64, finish), metadata=bearer, timeout=120)
before = held()
stored = objects.WriteObject(watched(write(spec, [block] * 64, finish)), metadata=bearer, timeout=120)
assert stored.etag == hashlib.md5(block * 64).hexdigest()
request = object_pb2.GetObjectRequest(**named("large"))
digest, count = hashlib.md5(), 0
for part in watched(objects.GetObject(request, metadata=bearer, timeout=120)):
    digest.update(part.chunk.content)
    count += len(part.chunk.content)
assert (digest.hexdigest(), count) == (stored.etag, 64 * MIB)
assert peak[0] - before < 32 * MIB, f"{(peak[0] - before) >> 20} MiB more for 64 MiB each way"

slow = objects.GetObject(request, metadata=bearer)
assert next(slow).beginning.length == 64 * MIB
time.sleep(1)
others = [read("docs", f"stream-{len(whole)}") for _ in range(5)]
assert all(content == whole for _, content in others)
digest = hashlib.md5()
for part in slow:
    digest.update(part.chunk.content)
assert digest.hexdigest() == stored.etag

taken_back = objects.GetObject(request, metadata=bearer)
next(taken_back)
taken_back.cancel()
sent, stop = threading.Event(), threading.Event()


def endless():
    yield object_pb2.WriteObjectRequest(spec=object_pb2.WriteObjectSpec(**named("half"), size=64 * MIB))
    for _ in range(8):
        yield object_pb2.WriteObjectRequest(chunk=object_pb2.Chunk(content=block))
    sent.set()
    stop.wait()


half = objects.WriteObject.future(endless(), metadata=bearer)
assert sent.wait(60)
half.cancel()
stop.set()
not_there("half")
stop.clear()
late = objects.WriteObject.future(endless(), metadata=bearer, timeout=0.5)
assert late.exception().code() == Code.DEADLINE_EXCEEDED
stop.set()
not_there("half")

# Many small ones side by side, compressed and not.
calls = []
for number in range(200):
    put = object_pb2.PutObjectRequest(**named(f"small/{number}"), content=b"%d" % number * 1000)
    gzip = grpc.Compression.Gzip if number % 2 else grpc.Compression.NoCompression
    calls.append(objects.PutObject.future(put, metadata=bearer, compression=gzip))
tags = [call.result().etag for call in calls]
assert tags == [hashlib.md5(b"%d" % number * 1000).hexdigest() for number in range(200)]

# Buckets.
refused(Code.ALREADY_EXISTS, "BUCKET_ALREADY_OWNED_BY_YOU", buckets.CreateBucket,
        bucket_pb2.CreateBucketRequest(bucket_name="docs"), metadata=bearer)  # fmt: skip
refused(Code.INVALID_ARGUMENT, "INVALID_BUCKET_NAME", buckets.CreateBucket,
        bucket_pb2.CreateBucketRequest(bucket_name="Docs"), metadata=bearer)  # fmt: skip
refused(Code.INVALID_ARGUMENT, "WRONG_REGION", buckets.CreateBucket,
        bucket_pb2.CreateBucketRequest(bucket_name="abc", region="moon"), metadata=bearer)  # fmt: skip
for name in ("abc", "abd", "abe"):
    made = buckets.CreateBucket(bucket_pb2.CreateBucketRequest(bucket_name=name), metadata=bearer).bucket
    assert made == buckets.GetBucket(bucket_pb2.GetBucketRequest(bucket_name=name), metadata=bearer).bucket
page = buckets.ListBuckets(bucket_pb2.ListBucketsRequest(page_size=2), metadata=bearer)
assert [bucket.name for bucket in page.buckets] == ["abc", "abd"] and page.next_page_token
page = buckets.ListBuckets(bucket_pb2.ListBucketsRequest(page_token=page.next_page_token), metadata=bearer)
assert [bucket.name for bucket in page.buckets] == ["abe", "docs"] and not page.next_page_token
assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"abc", "abd", "abe", "docs"}
buckets.DeleteBucket(bucket_pb2.DeleteBucketRequest(bucket_name="abc"), metadata=bearer)
refused(Code.NOT_FOUND, "NO_SUCH_BUCKET", buckets.DeleteBucket, bucket_pb2.DeleteBucketRequest(bucket_name="abc"),
        metadata=bearer)  # fmt: skip
refused(Code.FAILED_PRECONDITION, "BUCKET_NOT_EMPTY", buckets.DeleteBucket,
        bucket_pb2.DeleteBucketRequest(bucket_name="docs"), metadata=bearer)  # fmt: skip
try:
    s3.head_bucket(Bucket="abc")
    raise AssertionError("the bucket is gone")
except ClientError as error:
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 404

# What cannot be meant.
for fields, reason in (
    (dict(bucket_name="no", object_key="x"), "INVALID_BUCKET_NAME"),
    (named(""), "INVALID_OBJECT_KEY"),
    (named("x" * 1025), "INVALID_OBJECT_KEY"),
    (named("x", storage_class="MOON"), "NO_SUCH_STORAGE_CLASS"),
    (named("x", metadata=object_pb2.ObjectMetadata(user={"A": "b"})), "INVALID_METADATA"),
    (named("x", metadata=object_pb2.ObjectMetadata(user={"a": "b" * 3000})), "METADATA_TOO_LARGE"),
    (named("x", content=b"x" * (MIB + 1)), "TOO_LARGE"),
    (named("x", checksum=object_pb2.Checksum(value=b"1234")), "INVALID_CHECKSUM"),
    (named("x", checksum=object_pb2.Checksum(algorithm=2, value=b"123")), "INVALID_CHECKSUM"),
):
    refused(Code.INVALID_ARGUMENT, reason, stub_call, "PutObject", **fields)
refused(Code.NOT_FOUND, "NO_SUCH_BUCKET", stub_call, "PutObject", bucket_name="nowhere", object_key="x")
refused(Code.INVALID_ARGUMENT, "TOO_LARGE", objects.WriteObject,
        write(object_pb2.WriteObjectSpec(**named("x"), size=6 << 30), [], None), metadata=bearer)  # fmt: skip

# Who may ask, and for what.
ask = object_pb2.HeadObjectRequest(**named("hello.txt"))
refused(Code.UNAUTHENTICATED, "TOKEN_MISSING", objects.HeadObject, ask)
wrong = [("authorization", bearer[0][1][:-2] + "xx")]
refused(Code.UNAUTHENTICATED, "TOKEN_WRONG", objects.HeadObject, ask, metadata=wrong)
login = auth_pb2_grpc.AuthServiceStub(channel).GetAccessToken
for id, secret in ((access_key, "wrong"), ("nobody", secret_key)):
    request = auth_pb2.GetAccessTokenRequest(client_id=id, client_secret=secret)
    said = refused(Code.UNAUTHENTICATED, "CREDENTIALS_WRONG", login, request)
    assert secret_key not in said
request = auth_pb2.GetAccessTokenRequest(client_id=access_key, client_secret=secret_key, scopes=["everything"])
refused(Code.INVALID_ARGUMENT, "INVALID_SCOPE", login, request)
narrow = token("object:read|docs/hello*", "object:write|docs/in/*")
assert objects.HeadObject(ask, metadata=narrow).object.etag == etag
ask.object_key = "by-s3"
refused(Code.PERMISSION_DENIED, "ACCESS_DENIED", objects.HeadObject, ask, metadata=narrow)
ask.object_key = "hello, who is not there"
refused(Code.PERMISSION_DENIED, "ACCESS_DENIED", objects.HeadObject, ask, metadata=narrow)
put = object_pb2.PutObjectRequest(**named("out"), content=b"x")
refused(Code.PERMISSION_DENIED, "ACCESS_DENIED", objects.PutObject, put, metadata=narrow)
put.object_key = "in/x"
objects.PutObject(put, metadata=narrow)
refused(Code.PERMISSION_DENIED, "ACCESS_DENIED", objects.ListObjects,
        object_pb2.ListObjectsRequest(bucket_name="docs"), metadata=narrow)  # fmt: skip
answers = objects.BatchGet(object_pb2.BatchGetRequest(bucket_name="docs", object_keys=["hello.txt", "in/x"]), metadata=narrow)
assert [answer.WhichOneof("outcome") for answer in answers] == ["object", "error"]

# What tools expect of every server.
health = health_pb2_grpc.HealthStub(channel)
for service in ("", "anvil.v1.ObjectService"):
    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
refused(Code.NOT_FOUND, "NO_SUCH_SERVICE", health.Check, health_pb2.HealthCheckRequest(service="x"))
watch = health.Watch(health_pb2.HealthCheckRequest())
assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
watch.cancel()
for messages, stubs in ((reflection_pb2, reflection_pb2_grpc), (alpha_pb2, alpha_pb2_grpc)):
    questions = [
        messages.ServerReflectionRequest(list_services=""),
        messages.ServerReflectionRequest(file_containing_symbol="anvil.v1.ObjectService"),
        messages.ServerReflectionRequest(file_by_filename="none.proto"),
    ]
    stub = stubs.ServerReflectionStub(channel)
    services, files, none = stub.ServerReflectionInfo(iter(questions), timeout=10)
    names = [service.name for service in services.list_services_response.service]
    assert "anvil.v1.ObjectService" in names and "grpc.health.v1.Health" in names, names
    assert len(files.file_descriptor_response.file_descriptor_proto) >= 4
    assert none.error_response.error_code == Code.NOT_FOUND.value[0]
print("passed: buckets and objects with grpcio", grpc.__version__)
