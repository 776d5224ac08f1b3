"""What apps allow one another, and how soon a right that was taken back ends what streams under it, with grpcio.

usage: grpc_access.py PROTO_DIRECTORY HOST:PORT ANVIL DATA_DIRECTORY
"""

import json
import os
import queue
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import grpc_kit
from grpc_kit import crc32c, reason_of, refused

protos, address, anvil, data = sys.argv[1:]
grpc_kit.generate(protos)

from anvil.v1 import auth_pb2, auth_pb2_grpc, bucket_pb2, bucket_pb2_grpc, object_pb2, object_pb2_grpc  # noqa: E402

MIB = 1 << 20
Code = grpc.StatusCode
endpoint = os.environ["AWS_ENDPOINT_URL"]


def admin(*words):
    arguments = [anvil, "admin", *words, "--endpoint", endpoint, "--data-dir", data, "--output", "json"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (words, done.stderr)
    return json.loads(done.stdout)


# A connection of its own, whose windows are small: who does not read is not sent much.
channel = grpc.insecure_channel(address)
auth = auth_pb2_grpc.AuthServiceStub(channel)
buckets = bucket_pb2_grpc.BucketServiceStub(channel)
objects = object_pb2_grpc.ObjectServiceStub(channel)


def bearer(client_id, client_secret, *scopes):
    request = auth_pb2.GetAccessTokenRequest(client_id=client_id, client_secret=client_secret, scopes=scopes)
    return [("authorization", "Bearer " + auth.GetAccessToken(request, timeout=10).access_token)]


def app(name, *tenant):
    made = admin("app", "create", name, "--tenant-name", *(tenant or ["default"]))
    return made["client_id"], made["client_secret"]


def shared(method, whose, name, action, resource):
    request = getattr(auth_pb2, f"{method}Request")(app_name=name, action=action, resource=resource)
    return getattr(auth, method)(request, metadata=whose, timeout=30)


own = bearer(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
for name in ("docs", "other"):
    buckets.CreateBucket(bucket_pb2.CreateBucketRequest(bucket_name=name), metadata=own)
objects.PutObject(object_pb2.PutObjectRequest(bucket_name="docs", object_key="a/1", content=b"one"), metadata=own)
giver_keys, taker_keys = app("giver"), app("taker")
admin("tenant", "create", "elsewhere")
app("stranger", "elsewhere")
giver, taker = bearer(*giver_keys), bearer(*taker_keys)
head = object_pb2.HeadObjectRequest(bucket_name="docs", object_key="a/1")


def denied(call, *arguments, **more):
    refused(Code.PERMISSION_DENIED, "ACCESS_DENIED", call, *arguments, **more)


# An app passes on what it may do itself, where it may grant, to apps of its tenant.
grant = ("taker", "object:read", "docs/a/*")
denied(shared, "GrantAccess", giver, *grant)
shared("GrantAccess", own, "giver", "object:*", "docs/*")
denied(shared, "GrantAccess", giver, *grant)
shared("GrantAccess", own, "giver", "policy:grant", "docs/*")
denied(objects.HeadObject, head, metadata=taker)
shared("GrantAccess", giver, *grant)
shared("GrantAccess", giver, *grant)
assert objects.HeadObject(head, metadata=taker).object.size == 3
denied(shared, "GrantAccess", giver, "taker", "object:read", "other/*")
denied(shared, "GrantAccess", giver, "taker", "object:read", "*")
denied(shared, "GrantAccess", giver, "taker", "bucket:read", "docs/a")
denied(shared, "GrantAccess", taker, "giver", "object:read", "docs/a/*")
for whose in (giver, own):
    refused(Code.NOT_FOUND, "NO_SUCH_APP", shared, "GrantAccess", whose, "stranger", "object:read", "docs/a/*")
refused(Code.NOT_FOUND, "NO_SUCH_APP", shared, "GrantAccess", giver, "nobody", "object:read", "docs/a/*")
refused(Code.INVALID_ARGUMENT, "INVALID_ACTION", shared, "GrantAccess", giver, "taker", "read", "docs/a/*")
refused(Code.UNAUTHENTICATED, "TOKEN_MISSING", shared, "GrantAccess", None, *grant)
# A token that was narrowed shares no more than it is good for.
narrow = bearer(*giver_keys, "object:read|docs/a/*")
denied(shared, "GrantAccess", narrow, *grant)
narrow = bearer(*giver_keys, "object:read|docs/a/*", "policy:grant|docs/a/*")
denied(shared, "GrantAccess", narrow, "taker", "object:write", "docs/a/*")
shared("GrantAccess", narrow, *grant)

# It takes back what it passed on and nothing else; what was taken from it goes with it.
denied(shared, "RevokeAccess", giver, *grant)
shared("GrantAccess", own, "giver", "policy:revoke", "docs/*")
shared("RevokeAccess", giver, *grant)
denied(objects.HeadObject, head, metadata=taker)
refused(Code.NOT_FOUND, "NO_SUCH_GRANT", shared, "RevokeAccess", giver, *grant)
shared("GrantAccess", own, "taker", "object:write", "docs/a/*")
refused(Code.NOT_FOUND, "NO_SUCH_GRANT", shared, "RevokeAccess", giver, "taker", "object:write", "docs/a/*")
shared("GrantAccess", giver, *grant)
shared("RevokeAccess", own, "giver", "object:*", "docs/*")
denied(objects.HeadObject, head, metadata=taker)
shared("GrantAccess", own, "giver", "object:*", "docs/*")


# Who may read a bucket.
def anonymous():
    try:
        return urllib.request.urlopen(f"{endpoint}/docs/a/1", timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def policy(whose):
    request = bucket_pb2.GetBucketPolicyRequest(bucket_name="docs")
    return buckets.GetBucketPolicy(request, metadata=whose).policy.public_read


public = auth_pb2.SetPublicAccessRequest(bucket_name="docs", allow=True)
denied(auth.SetPublicAccess, public, metadata=giver)
denied(policy, giver)
shared("GrantAccess", own, "giver", "bucket:*", "docs")
assert anonymous() == 403 and not policy(giver)
auth.SetPublicAccess(public, metadata=giver)
assert anonymous() == 200 and policy(giver) and policy(own)
put = bucket_pb2.PutBucketPolicyRequest(bucket_name="docs", policy=bucket_pb2.BucketPolicy(public_read=False))
buckets.PutBucketPolicy(put, metadata=giver)
assert anonymous() == 403 and not policy(giver)
put.ClearField("policy")
refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST", buckets.PutBucketPolicy, put, metadata=giver)
put = bucket_pb2.PutBucketPolicyRequest(bucket_name="none", policy=bucket_pb2.BucketPolicy(public_read=True))
refused(Code.NOT_FOUND, "NO_SUCH_BUCKET", buckets.PutBucketPolicy, put, metadata=own)
done = [record["action"] for record in admin("audit", "list")]
assert {"policy grant", "policy revoke", "bucket make-public", "bucket make-private"} <= set(done), done

# What streams when its right is taken back ends within about a second.
size = 32 * MIB
spec = object_pb2.WriteObjectSpec(bucket_name="docs", object_key="a/large", size=size)


def whole():
    yield object_pb2.WriteObjectRequest(spec=spec)
    for _ in range(size // MIB):
        yield object_pb2.WriteObjectRequest(chunk=object_pb2.Chunk(content=bytes(MIB)))
    total, length = crc32c(bytes(MIB)), MIB
    while length < size:
        total, length = grpc_kit.joined(total, total, length), 2 * length
    yield object_pb2.WriteObjectRequest(finish=object_pb2.WriteFinish(size=size, crc32c=total))


objects.WriteObject(whole(), metadata=own, timeout=60)


def said(first):
    """A stream of questions that begins so and never ends by itself."""
    questions = queue.SimpleQueue()
    questions.put(first)
    return iter(questions.get, None)


def streams(whose):
    """Calls of all kinds that have begun and go on for as long as they may."""
    where = dict(bucket_name="docs", object_key="a/large")
    get = objects.GetObject(object_pb2.GetObjectRequest(**where), metadata=whose)
    read = objects.BidiRead(
        said(object_pb2.BidiReadRequest(spec=object_pb2.BidiReadSpec(**where))), metadata=whose
    )
    begin = object_pb2.BidiWriteSpec(bucket_name="docs", object_key="a/write")
    write = objects.BidiWrite(said(object_pb2.BidiWriteRequest(spec=begin)), metadata=whose)
    assert next(get).beginning.length == size and next(read).object.size == size
    next(write)
    return dict(get=get, read=read, write=write)


def ends(call, code, reason, since):
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        assert (error.code(), reason_of(error)) == (code, reason), (error.code(), error.details())
        return time.monotonic() - since
    raise AssertionError("the call ended well")


shared("GrantAccess", giver, "taker", "object:read", "docs/a/*")
running = streams(taker)
steady = streams(own)
before = time.monotonic()
shared("RevokeAccess", giver, "taker", "object:read", "docs/a/*")
took = ends(running["read"], Code.PERMISSION_DENIED, "ACCESS_DENIED", before)
assert took < 3, f"an idle BidiRead ended {took:.1f} s later"
took = ends(running["get"], Code.PERMISSION_DENIED, "ACCESS_DENIED", before)
assert took < 4, f"a GetObject that nobody read ended {took:.1f} s later"
# Another right is another matter.
assert running["write"].is_active()
before = time.monotonic()
admin("app", "delete", "taker")
took = ends(running["write"], Code.UNAUTHENTICATED, "TOKEN_WRONG", before)
assert took < 4, f"an idle BidiWrite ended {took:.1f} s later"
assert sum(len(part.chunk.content) for part in steady["get"]) == size, "nobody else is disturbed"
assert steady["read"].is_active() and steady["write"].is_active()
print("passed: what apps allow one another with grpcio", grpc.__version__)
