"""Checks that every protocol serves the same store. Called with the node's certificate and a directory for files.

boto3 speaks HTTP/1.1, with TLS and without, and presigns; curl takes the presigned requests through every protocol. The
endpoint and the credentials come from the environment.
"""

import itertools
import os
import subprocess
import sys
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

certificate, directory = sys.argv[1:]
host = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
MIB = 1 << 20


def client(scheme):
    config = Config(retries={"total_max_attempts": 1}, signature_version="s3v4", s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=f"{scheme}://{host}", verify=certificate, config=config)


clients = {"http": client("http"), "https": client("https")}
# How curl is told, what it must come to, and the scheme.
PROTOCOLS = {
    "h2c": (["--http2-prior-knowledge"], "2", "http"),
    "h2": (["--http2", "--cacert", certificate], "2", "https"),
    "http/1.1 over TLS": (["--http1.1", "--cacert", certificate], "1.1", "https"),
    "http/1.1": (["--http1.1"], "1.1", "http"),
}
names = itertools.count()


def curl(protocol, url, *options):
    """The status and the body of the answer."""
    flags, version, _ = PROTOCOLS[protocol]
    out = os.path.join(directory, f"out-{next(names)}")
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--output", out]
    command += ["--write-out", "%{http_version} %{http_code}", *flags, *options, url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    got, status = said.split()
    assert got == version, f"{protocol} came to HTTP/{got}"
    body = open(out, "rb").read() if os.path.exists(out) else b""
    return int(status), body


def ask(protocol, method, operation, *options, **arguments):
    """A presigned request by curl, that must succeed."""
    scheme = PROTOCOLS[protocol][2]
    url = clients[scheme].generate_presigned_url(operation, Params=arguments, HttpMethod=method)
    status, body = curl(protocol, url, "--request", method, *options)
    assert 200 <= status < 300, f"{protocol} {operation}: {status} {body[:500]}"
    return body


def file_of(content):
    path = os.path.join(directory, f"in-{next(names)}")
    with open(path, "wb") as file:
        file.write(content)
    return path


clients["https"].create_bucket(Bucket="bucket")
content = os.urandom(3 * MIB + 7)
for protocol in PROTOCOLS:
    key = protocol.replace(" ", "-").replace("/", "-")
    ask(protocol, "PUT", "put_object", "--upload-file", file_of(content), Bucket="bucket", Key=key)
    for reader in PROTOCOLS:
        assert ask(reader, "GET", "get_object", Bucket="bucket", Key=key) == content, f"{protocol} by {reader}"
    for s3 in clients.values():
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == content
        assert s3.get_object(Bucket="bucket", Key=key, Range="bytes=5-9")["Body"].read() == content[5:10]
    print(f"put and get by {protocol}")

for protocol in PROTOCOLS:
    key = f"parts-{next(names)}"
    made = ask(protocol, "POST", "create_multipart_upload", "--data-binary", "", Bucket="bucket", Key=key).decode()
    upload = made.split("<UploadId>")[1].split("</UploadId>")[0]
    parts = [os.urandom(5 * MIB), os.urandom(10)]
    for number, part in enumerate(parts, 1):
        ask(protocol, "PUT", "upload_part", "--upload-file", file_of(part), Bucket="bucket", Key=key, UploadId=upload, PartNumber=number)
    listed = clients["http"].list_parts(Bucket="bucket", Key=key, UploadId=upload)["Parts"]
    elements = "".join(f"<Part><PartNumber>{p['PartNumber']}</PartNumber><ETag>{p['ETag']}</ETag></Part>" for p in listed)
    order = file_of(f"<CompleteMultipartUpload>{elements}</CompleteMultipartUpload>".encode())
    ask(protocol, "POST", "complete_multipart_upload", "--data-binary", f"@{order}", Bucket="bucket", Key=key, UploadId=upload)
    assert clients["https"].get_object(Bucket="bucket", Key=key)["Body"].read() == b"".join(parts)
    print(f"an upload in parts by {protocol}")

pages = {ask(protocol, "GET", "list_objects_v2", Bucket="bucket") for protocol in PROTOCOLS}
assert len(pages) == 1 and pages.pop().count(b"<Key>") == 2 * len(PROTOCOLS), "a listing is the same by every protocol"
for protocol in PROTOCOLS:
    ask(protocol, "DELETE", "delete_object", Bucket="bucket", Key="http-1.1")
    status, body = curl(protocol, f"{PROTOCOLS[protocol][2]}://{host}/bucket/secret")
    assert (status, b"<Code>AccessDenied</Code>" in body) == (403, True), f"{protocol}: {status} {body}"
print("listing, deletion, refusal")

# Twenty downloads share one connection of HTTP/2.
url = clients["https"].generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "h2"})
command = ["curl", "--silent", "--show-error", "--max-time", "60", "--parallel", "--http2", "--cacert", certificate]
command += ["--write-out", "%{http_version} %{http_code} %{num_connects}\n"]
outs = [os.path.join(directory, f"parallel-{number}") for number in range(20)]
for out in outs:
    command += ["--output", out, url]
said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
assert len(said) == 20 and all(line.startswith("2 200 ") for line in said), said
assert all(open(out, "rb").read() == content for out in outs)
print(f"parallel downloads over {sum(int(line.split()[2]) for line in said)} connections")

flags = ["--http2-prior-knowledge", "--header", "content-type: application/grpc", "--request", "POST", "--dump-header", "-"]
command = ["curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", *flags, f"http://{host}/a.B/C"]
said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
assert "grpc-status: 12" in said and said.startswith("HTTP/2 200"), said
print("gRPC is refused in its own words")
