"""Checks how often somebody may come, as programs find it: plain requests, boto3 and grpcio. Called with the directory of our
.proto files, HOST:PORT, the binary, the data directory of the node and the name of a group; prints each check as it passes.

The node trusts 127.0.0.1 as a proxy and nobody else: what comes from there counts for whom it says, what comes from 127.0.0.2 for
itself.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

import boto3
import grpc
import grpc_kit
from botocore.config import Config
from botocore.exceptions import ClientError

protos, address, anvil, data, group = sys.argv[1:]
grpc_kit.generate(protos)

from anvil.v1 import admin_pb2, admin_pb2_grpc, auth_pb2, auth_pb2_grpc, bucket_pb2, bucket_pb2_grpc  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from grpc.health.v1 import health_pb2, health_pb2_grpc  # noqa: E402

HOST, PORT = address.rsplit(":", 1)
STRANGER = "127.0.0.2"
channel = grpc.insecure_channel(address)
login = auth_pb2_grpc.AuthServiceStub(channel).GetAccessToken
buckets = bucket_pb2_grpc.BucketServiceStub(channel)


def passed(check):
    print(f"passed: {check}")


def get(target, source=STRANGER, method="GET", **headers):
    """A request that no library adorns: status, headers and body of the answer."""
    connection = http.client.HTTPConnection(HOST, int(PORT), timeout=60, source_address=(source, 0))
    connection.request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def client(app, **settings):
    settings = {"retries": {"total_max_attempts": 1}, "signature_version": "s3v4", **settings}
    keys = {"aws_access_key_id": app["client_id"], "aws_secret_access_key": app["client_secret"]}
    return boto3.client("s3", config=Config(**settings), endpoint_url=f"http://{address}", region_name="us-east-1", **keys)


own = client({"client_id": os.environ["AWS_ACCESS_KEY_ID"], "client_secret": os.environ["AWS_SECRET_ACCESS_KEY"]})


def admin(*words):
    arguments = [anvil, "admin", *words, "--endpoint", f"http://{address}", "--data-dir", data, "--output", "json"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (words, done.stderr)
    return json.loads(done.stdout)


def make_app(name):
    app = admin("app", "create", "--tenant-name", "default", "--app-name", name)
    admin("policy", "grant", "--app-name", name, "--action", "bucket:list", "--resource", "*")
    return app


def until_refused(attempt, per_minute):
    """Attempts until one is refused for its number: a minute's worth comes at once, and no more than what came back since."""
    began, count = time.monotonic(), 0
    while (refusal := attempt()) is None:
        count += 1
        assert count < 10_000, "nothing is limited"
    back = (time.monotonic() - began) * per_minute / 60 + 1
    assert per_minute <= count <= per_minute + back, (count, per_minute, back)
    return refusal


def limited(status, headers, body, expected):
    """The refusal, or None for the answer that is expected otherwise."""
    if status == 429:
        assert b"<Code>SlowDown</Code>" in body and int(headers["Retry-After"]) >= 1, (headers, body)
        return int(headers["Retry-After"])
    assert status == expected, (status, body)
    return None


def too_often(call, *arguments, **more):
    """The limit that a call is beyond, and for how long; None when it is within."""
    try:
        call(*arguments, timeout=30, **more)
        return None
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            return None
        assert grpc_kit.reason_of(error) == "TOO_OFTEN", error
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info) and status.details[1].Unpack(retry), status
        return info.metadata["limit"], retry.retry_delay.ToNanoseconds() / 1e9


def ask(client_id, client_secret="wrong", of="203.0.113.1"):
    """An attempt to get a token, as a proxy passes it on."""
    request = auth_pb2.GetAccessTokenRequest(client_id=client_id, client_secret=client_secret)
    return too_often(login, request, metadata=[("x-forwarded-for", of)])


def metric(name, limit):
    page = get("/metrics")[2].decode()
    line = next(line for line in page.splitlines() if line.startswith(f'anvil_{name}{{limit="{limit}"}} '))
    return float(line.split()[-1])


def strangers():
    """20 a minute without credentials, by address."""
    own.create_bucket(Bucket="docs")
    own.put_object(Bucket="docs", Key="k", Body=b"body")
    own.create_bucket(Bucket="open")
    own.put_object(Bucket="open", Key="k", Body=b"open")
    admin("bucket", "set-public-access", "open", "--allow")

    def anonymous(source=STRANGER, **headers):
        return limited(*get("/docs/k", source, **headers), 403)

    def is_limited(source=STRANGER, **headers):
        """Several at once: within a moment no more than one comes back."""
        return any(anonymous(source, **headers) for _ in range(3))

    wait = until_refused(anonymous, 20)
    assert 1 <= wait <= 3, wait
    assert is_limited()
    passed("too many requests without credentials get 429 with Retry-After")

    for target in ["/", "/ready", "/metrics", "/open/k"]:
        assert all(get(target)[0] == 200 for _ in range(30)), target
    assert all(get("/docs/k", method="OPTIONS", Origin="https://a")[0] == 403 for _ in range(30))
    url = urlsplit(own.generate_presigned_url("get_object", Params={"Bucket": "docs", "Key": "k"}))
    assert all(get(f"{url.path}?{url.query}")[2] == b"body" for _ in range(30))
    assert is_limited()
    passed("health, metrics, public objects, preflight and signed requests are not counted")

    assert not is_limited("127.0.0.3")
    assert is_limited(X_Forwarded_For="198.51.100.1") and is_limited(X_Forwarded_For="127.0.0.1")
    passed("what a stranger says of itself changes nothing")
    assert is_limited("127.0.0.1", X_Forwarded_For=f"198.51.100.1, {STRANGER}")
    assert not is_limited("127.0.0.1", X_Forwarded_For=f"{STRANGER}, 198.51.100.1")
    until_refused(lambda: anonymous("127.0.0.1", X_Forwarded_For="2001:db8::1"), 20)
    assert is_limited("127.0.0.1", X_Forwarded_For="2001:db8::ffff:2") and not is_limited("127.0.0.1", X_Forwarded_For="2001:db8:0:1::1")
    passed("a trusted proxy says for whom it speaks")

    began = time.monotonic()
    while anonymous() is not None:
        assert time.monotonic() - began < wait + 5, "it does not come back"
        time.sleep(0.1)
    passed("who waits is let in")

    wrong = client({"client_id": os.environ["AWS_ACCESS_KEY_ID"], "client_secret": "a-wrong-secret"})
    nobody = client({"client_id": "NOBODY", "client_secret": "a-wrong-secret"})
    for source, guess in [("127.0.0.4", wrong), ("127.0.0.5", nobody)]:
        guessed = urlsplit(guess.generate_presigned_url("get_object", Params={"Bucket": "docs", "Key": "k"}))
        until_refused(lambda: limited(*get(f"{guessed.path}?{guessed.query}", source), 403), 20)
        assert get(f"{url.path}?{url.query}", source)[0] == 200
    passed("guesses of secrets count as requests without credentials")

    of = [("x-forwarded-for", "203.0.113.7")]
    limit, seconds = until_refused(lambda: too_often(buckets.ListBuckets, bucket_pb2.ListBucketsRequest(), metadata=of), 20)
    assert limit == "anonymous" and 0 < seconds <= 3, (limit, seconds)
    health = health_pb2_grpc.HealthStub(channel)
    assert all(too_often(health.Check, health_pb2.HealthCheckRequest(), metadata=of) is None for _ in range(30))
    own.list_buckets()
    assert metric("limited_requests_total", "anonymous") >= 10 and metric("limited_requests_total", "app") == 0
    assert metric("limited_forgotten_total", "anonymous") == 0
    passed("calls without a token count too")


def logins():
    """10 a minute, by address and by app."""
    app, other = make_app("one"), make_app("two")

    def right(of):
        return ask(app["client_id"], app["client_secret"], of)

    limit, seconds = until_refused(lambda: right("203.0.113.1"), 10)
    assert limit == "logins_from_address" and 0 < seconds <= 6, (limit, seconds)
    assert ask(other["client_id"], other["client_secret"], "203.0.113.1")[0] == "logins_from_address"
    passed("the eleventh token from an address is refused, with the time to wait")

    # From a new address each time, and without knowing the secret.
    addresses = iter(f"198.51.100.{n}" for n in range(1, 255))
    limit, seconds = until_refused(lambda: ask(other["client_id"], of=next(addresses)), 10)
    assert limit == "logins_of_app" and 0 < seconds <= 6, (limit, seconds)
    assert ask(make_app("three")["client_id"], of=next(addresses)) is None
    passed("and so is the eleventh for an app, wherever from")
    s3 = client(other)
    assert all(s3.list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200 for _ in range(30))
    assert metric("limited_requests_total", "logins_from_address") >= 2
    assert metric("limited_requests_total", "logins_of_app") >= 1
    passed("its requests are not counted")

    guess = admin_pb2.LoginRequest(username="root", password="a guess of many")
    limit, seconds = until_refused(lambda: too_often(admin_pb2_grpc.AdminServiceStub(channel).Login, guess), 10)
    assert limit == "logins_from_address" and 0 < seconds <= 6, (limit, seconds)
    passed("and neither do guesses of an administrator's password go on")


def apps():
    """60 a minute of an app, by whatever protocol."""
    one, two = make_app("one"), make_app("two")
    request = auth_pb2.GetAccessTokenRequest(client_id=one["client_id"], client_secret=one["client_secret"])
    bearer = [("authorization", "Bearer " + login(request).access_token)]
    s3 = client(one)

    def listing():
        try:
            s3.list_buckets()
            return None
        except ClientError as error:
            response = error.response["ResponseMetadata"]
            assert (error.response["Error"]["Code"], response["HTTPStatusCode"]) == ("SlowDown", 429), error
            return int(response["HTTPHeaders"]["retry-after"])

    assert until_refused(listing, 60) == 1
    refused = [too_often(buckets.ListBuckets, bucket_pb2.ListBucketsRequest(), metadata=bearer) for _ in range(5)]
    assert {refusal[0] for refusal in refused if refusal} == {"app"}, refused
    client(two).list_buckets()
    passed("an app that sends too much is told so in both protocols, and no other")
    patient = client(one, retries={"total_max_attempts": 10, "mode": "standard"})
    assert all(patient.list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200 for _ in range(3))
    passed("boto3 waits by itself")


{"strangers": strangers, "logins": logins, "apps": apps}[group]()
