"""Checks that boto3 finds S3 as it knows it. Called with the name of a group; prints each check as it passes.

The endpoint and the credentials come from the environment, as for any program that uses boto3.
"""

import base64
import concurrent.futures
import hashlib
import os
import random
import socket
import sys
import urllib.error
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1 << 20


def client(**changes):
    """A client that shows every refusal as it came: without retries."""
    config = Config(retries={"total_max_attempts": 1}, signature_version="s3v4", **changes.pop("config", {}))
    return boto3.client("s3", config=config, **changes)


s3 = client()


def refused(code, status, call, **arguments):
    """Calls what has to be refused with this code and status; gives the error."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        response = error.response
        got = (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"])
        assert got == (code, status), f"refused with {got} and not {(code, status)}: {error}"
        return response
    raise AssertionError(f"{call.__name__}{arguments} was not refused with {code}: {answer}")


def body(bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


def sample(length, seed=0):
    return random.Random(f"{seed} {length}").randbytes(length)


def raw(method, path, headers=None, data=None):
    """A request without a signature. Gives status, headers and body."""
    request = urllib.request.Request(os.environ["AWS_ENDPOINT_URL"] + path, method=method, headers=headers or {}, data=data)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class Buckets:
    def make_look_list_delete(self):
        assert s3.list_buckets()["Buckets"] == []
        for name in ["zebra", "apple", "app.le-2"]:
            answer = s3.create_bucket(Bucket=name)
            assert answer["Location"] == f"/{name}", answer["Location"]
        names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        assert names == sorted(names) == ["app.le-2", "apple", "zebra"], names
        assert s3.list_buckets()["Owner"]["ID"]
        assert s3.head_bucket(Bucket="apple")["BucketRegion"] == "us-east-1"
        assert s3.get_bucket_location(Bucket="apple")["LocationConstraint"] is None
        s3.delete_bucket(Bucket="apple")
        refused("404", 404, s3.head_bucket, Bucket="apple")
        refused("NoSuchBucket", 404, s3.get_bucket_location, Bucket="apple")
        refused("NoSuchBucket", 404, s3.delete_bucket, Bucket="apple")

    def a_bucket_with_objects_stays(self):
        s3.create_bucket(Bucket="full")
        s3.put_object(Bucket="full", Key="a", Body=b"a")
        refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="full")
        s3.delete_object(Bucket="full", Key="a")
        s3.delete_bucket(Bucket="full")

    def settings_that_were_never_made(self):
        s3.create_bucket(Bucket="settings")
        s3.put_object(Bucket="settings", Key="key", Body=b"")
        for call, code in [
            (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
            (s3.get_bucket_policy, "NoSuchBucketPolicy"),
            (s3.get_bucket_policy_status, "NoSuchBucketPolicy"),
            (s3.get_bucket_tagging, "NoSuchTagSet"),
            (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
            (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
            (s3.get_bucket_cors, "NoSuchCORSConfiguration"),
            (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
            (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
        ]:
            refused(code, 404, call, Bucket="settings")
            refused("NoSuchBucket", 404, call, Bucket="missing")
        for call in [s3.get_bucket_notification_configuration, s3.get_bucket_logging, s3.get_bucket_accelerate_configuration]:
            answer = call(Bucket="settings")
            assert set(answer) == {"ResponseMetadata"}, answer
        assert s3.get_bucket_request_payment(Bucket="settings")["Payer"] == "BucketOwner"
        rules = s3.get_bucket_ownership_controls(Bucket="settings")["OwnershipControls"]["Rules"]
        assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"}], rules
        block = s3.get_public_access_block(Bucket="settings")["PublicAccessBlockConfiguration"]
        assert len(block) == 4 and all(block.values()), block
        assert s3.get_object_tagging(Bucket="settings", Key="key")["TagSet"] == []
        refused("NoSuchKey", 404, s3.get_object_tagging, Bucket="settings", Key="missing")
        refused("InvalidRequest", 400, s3.get_object_retention, Bucket="settings", Key="key")
        refused("InvalidRequest", 400, s3.get_object_legal_hold, Bucket="settings", Key="key")

    def a_bucket_made_anew_is_empty(self):
        for _ in range(3):
            s3.create_bucket(Bucket="again")
            assert s3.list_objects_v2(Bucket="again")["KeyCount"] == 0
            refused("NoSuchKey", 404, s3.get_object, Bucket="again", Key="a")
            s3.put_object(Bucket="again", Key="a", Body=b"a")
            s3.delete_object(Bucket="again", Key="a")
            s3.delete_bucket(Bucket="again")

    def names_are_checked(self):
        status, _, text = raw("PUT", "/Not_A_Name")
        assert status in (400, 403), (status, text)
        careless = client()
        careless.meta.events.unregister("before-parameter-build.s3", __import__("botocore.handlers").handlers.validate_bucket_name)
        for name in ["Upper", "a_b", "ab", "10.0.0.1", "-ab"]:
            refused("InvalidBucketName", 400, careless.create_bucket, Bucket=name)

    def health_without_credentials(self):
        assert raw("GET", "/")[0] == 200
        assert raw("GET", "/ready")[0] == 200
        status, _, text = raw("GET", "/metrics")
        assert status == 200 and b"anvil" in text, text[:200]


class Objects:
    def __init__(self):
        s3.create_bucket(Bucket="objects")

    def put_get_head_delete(self):
        for length in [0, 1, 1000, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 5 * MIB + 3]:
            data = sample(length)
            answer = s3.put_object(Bucket="objects", Key="key", Body=data)
            tag = f'"{hashlib.md5(data).hexdigest()}"'
            assert answer["ETag"] == tag, answer
            answer = s3.get_object(Bucket="objects", Key="key")
            assert answer["Body"].read() == data
            assert (answer["ETag"], answer["ContentLength"]) == (tag, length)
            assert answer["ContentType"] == "binary/octet-stream"
            assert answer["AcceptRanges"] == "bytes"
            head = s3.head_object(Bucket="objects", Key="key")
            assert (head["ETag"], head["ContentLength"]) == (tag, length)
            assert head["LastModified"] == answer["LastModified"]
            s3.delete_object(Bucket="objects", Key="key")
            refused("NoSuchKey", 404, s3.get_object, Bucket="objects", Key="key")
            refused("404", 404, s3.head_object, Bucket="objects", Key="key")
            s3.delete_object(Bucket="objects", Key="key")  # once more is no error

    def headers_and_user_metadata_come_back(self):
        given = {
            "ContentType": "text/plain; charset=utf-8",
            "CacheControl": "max-age=60, private",
            "ContentDisposition": 'attachment; filename="a b.txt"',
            "ContentEncoding": "gzip",
            "ContentLanguage": "de-CH",
            "WebsiteRedirectLocation": "/elsewhere",
            "Metadata": {"plain": "value", "dash-and.dot": "a, b;  c", "empty": ""},
        }
        s3.put_object(Bucket="objects", Key="headers", Body=b"x", Expires="Thu, 01 Dec 2044 16:00:00 GMT", **given)
        for call in [s3.get_object, s3.head_object]:
            answer = call(Bucket="objects", Key="headers")
            for name, value in given.items():
                assert answer[name] == value, (call.__name__, name, answer[name])
            assert answer["ExpiresString"] == "Thu, 01 Dec 2044 16:00:00 GMT", answer["ExpiresString"]
        answer = s3.get_object(
            Bucket="objects", Key="headers", ResponseContentType="image/png", ResponseCacheControl="no-store"
        )
        assert (answer["ContentType"], answer["CacheControl"]) == ("image/png", "no-store")
        s3.put_object(Bucket="objects", Key="headers", Body=b"y")
        answer = s3.head_object(Bucket="objects", Key="headers")
        assert answer["Metadata"] == {} and "CacheControl" not in answer, "an overwrite takes nothing over"

    def user_metadata_has_a_limit(self):
        s3.put_object(Bucket="objects", Key="limit", Body=b"", Metadata={"a": "b" * 2047})
        refused("MetadataTooLarge", 400, s3.put_object, Bucket="objects", Key="limit", Body=b"", Metadata={"a": "b" * 2048})

    def ranges(self):
        data = sample(3 * MIB + 17)
        s3.put_object(Bucket="objects", Key="range", Body=data)
        length = len(data)
        for text, start, end in [
            ("bytes=0-0", 0, 1),
            ("bytes=0-", 0, length),
            ("bytes=10-19", 10, 20),
            ("bytes=-5", length - 5, length),
            (f"bytes=-{length + 10}", 0, length),
            (f"bytes={MIB - 1}-{MIB}", MIB - 1, MIB + 1),
            (f"bytes={2 * MIB}-{9 * MIB}", 2 * MIB, length),
            (f"bytes={65536}-{131071}", 65536, 131072),
            (f"bytes={length - 1}-", length - 1, length),
        ]:
            answer = s3.get_object(Bucket="objects", Key="range", Range=text)
            assert answer["Body"].read() == data[start:end], text
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206, text
            assert answer["ContentRange"] == f"bytes {start}-{end - 1}/{length}", answer["ContentRange"]
            assert answer["ContentLength"] == end - start
        refused("InvalidRange", 416, s3.get_object, Bucket="objects", Key="range", Range=f"bytes={length}-")
        refused("InvalidRange", 416, s3.get_object, Bucket="objects", Key="range", Range="bytes=-0")
        for ignored in ["bytes=5-4", "lines=1-2", "bytes=a-b"]:
            answer = s3.get_object(Bucket="objects", Key="range", Range=ignored)
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200, ignored
            assert len(answer["Body"].read()) == length
        head = s3.head_object(Bucket="objects", Key="range", Range="bytes=10-19")
        assert head["ContentLength"] == 10, head["ContentLength"]
        s3.put_object(Bucket="objects", Key="nothing", Body=b"")
        refused("InvalidRange", 416, s3.get_object, Bucket="objects", Key="nothing", Range="bytes=0-0")

    def conditions_on_reads(self):
        s3.put_object(Bucket="objects", Key="conditions", Body=b"1")
        head = s3.head_object(Bucket="objects", Key="conditions")
        tag, time = head["ETag"], head["LastModified"]
        here = {"Bucket": "objects", "Key": "conditions"}
        assert body("objects", "conditions", IfMatch=tag) == b"1"
        assert body("objects", "conditions", IfNoneMatch='"other"') == b"1"
        assert body("objects", "conditions", IfUnmodifiedSince=time) == b"1"
        refused("PreconditionFailed", 412, s3.get_object, IfMatch='"other"', **here)
        refused("304", 304, s3.get_object, IfNoneMatch=tag, **here)
        refused("304", 304, s3.head_object, IfNoneMatch=tag, **here)
        refused("304", 304, s3.get_object, IfModifiedSince=time, **here)
        refused("412", 412, s3.head_object, IfMatch='"other"', **here)

    def conditions_on_writes(self):
        here = {"Bucket": "objects", "Key": "written-once"}
        s3.put_object(Body=b"1", IfNoneMatch="*", **here)
        refused("PreconditionFailed", 412, s3.put_object, Body=b"2", IfNoneMatch="*", **here)
        tag = s3.head_object(**here)["ETag"]
        refused("PreconditionFailed", 412, s3.put_object, Body=b"2", IfMatch='"d41d8cd98f00b204e9800998ecf8427e"', **here)
        assert body("objects", "written-once") == b"1"
        s3.put_object(Body=b"2", IfMatch=tag, **here)
        assert body("objects", "written-once") == b"2"
        refused("NoSuchKey", 404, s3.put_object, Bucket="objects", Key="never", Body=b"2", IfMatch=tag)

    def conditions_on_deletes(self):
        here = {"Bucket": "objects", "Key": "deleted-if"}
        refused("PreconditionFailed", 412, s3.delete_object, IfMatch="*", **here)
        tag = s3.put_object(Body=b"1", **here)["ETag"]
        refused("PreconditionFailed", 412, s3.delete_object, IfMatch='"d41d8cd98f00b204e9800998ecf8427e"', **here)
        s3.delete_object(IfMatch=tag, **here)
        refused("404", 404, s3.head_object, **here)
        for key in ["if-a", "if-b"]:
            s3.put_object(Bucket="objects", Key=key, Body=b"1")
        wanted = [{"Key": "if-a", "ETag": tag}, {"Key": "if-b", "ETag": '"other"', "VersionId": "null"}]
        answer = s3.delete_objects(Bucket="objects", Delete={"Objects": wanted})
        assert [entry["Key"] for entry in answer["Deleted"]] == ["if-a"], answer
        assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("if-b", "PreconditionFailed")], answer
        assert body("objects", "if-b") == b"1"

    def of_many_writers_one_wins(self):
        def attempt(number, **conditions):
            try:
                writer.put_object(Bucket="objects", Key="contended", Body=str(number).encode(), **conditions)
                return number
            except ClientError as error:
                assert error.response["Error"]["Code"] == "PreconditionFailed", error
                return None

        writer = client(config={"max_pool_connections": 24})
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            winners = [number for number in pool.map(lambda number: attempt(number, IfNoneMatch="*"), range(24)) if number is not None]
            assert len(winners) == 1, winners
            assert body("objects", "contended") == str(winners[0]).encode()
            for _ in range(3):
                tag = s3.head_object(Bucket="objects", Key="contended")["ETag"]
                winners = [n for n in pool.map(lambda n: attempt(100 + n, IfMatch=tag), range(24)) if n is not None]
                assert len(winners) == 1, winners
                assert body("objects", "contended") == str(winners[0]).encode()
                s3.put_object(Bucket="objects", Key="contended", Body=b"again")

    def null_versions(self):
        s3.create_bucket(Bucket="versions")
        for key in ["a", "b/1", "b/2", "c"]:
            s3.put_object(Bucket="versions", Key=key, Body=key.encode())
        answer = s3.list_object_versions(Bucket="versions")
        found = [(entry["Key"], entry["VersionId"], entry["IsLatest"], entry["Size"]) for entry in answer["Versions"]]
        assert found == [("a", "null", True, 1), ("b/1", "null", True, 3), ("b/2", "null", True, 3), ("c", "null", True, 1)]
        assert "DeleteMarkers" not in answer and not answer["IsTruncated"]
        answer = s3.list_object_versions(Bucket="versions", Delimiter="/")
        assert [entry["Prefix"] for entry in answer["CommonPrefixes"]] == ["b/"], answer
        pages = s3.get_paginator("list_object_versions").paginate(Bucket="versions", PaginationConfig={"PageSize": 1})
        assert [entry["Key"] for page in pages for entry in page.get("Versions", [])] == ["a", "b/1", "b/2", "c"]
        assert body("versions", "a", VersionId="null") == b"a"
        assert s3.head_object(Bucket="versions", Key="a", VersionId="null")["ContentLength"] == 1
        s3.delete_object(Bucket="versions", Key="a", VersionId="null")
        wanted = [{"Key": key, "VersionId": "null"} for key in ["b/1", "b/2", "c"]]
        answer = s3.delete_objects(Bucket="versions", Delete={"Objects": wanted})
        assert answer["Deleted"] == wanted, answer
        assert "Versions" not in s3.list_object_versions(Bucket="versions")
        assert "Status" not in s3.get_bucket_versioning(Bucket="versions")

    def keys_are_any_text(self):
        keys = [
            "a b", "plus+plus", "per%20cent", "what?&=#", "slash//slash/", "/leading", "./dot/../dots", "ümläut/日本/😀",
            "quote'\"<>&amp;", "back\\slash", "tab\tnew\nline", "trailing/", "~!@$^*()_-{}|:;,.", "x" * 1024,
        ]
        for index, key in enumerate(keys):
            s3.put_object(Bucket="objects", Key="any/" + key[: 1024 - 4], Body=str(index).encode())
        for index, key in enumerate(keys):
            assert body("objects", "any/" + key[: 1024 - 4]) == str(index).encode(), key
        listed = s3.list_objects_v2(Bucket="objects", Prefix="any/")["Contents"]
        expected = sorted(("any/" + key[: 1024 - 4] for key in keys), key=lambda key: key.encode())
        assert [entry["Key"] for entry in listed] == expected
        for key in expected:
            s3.delete_object(Bucket="objects", Key=key)
        assert s3.list_objects_v2(Bucket="objects", Prefix="any/")["KeyCount"] == 0
        refused("KeyTooLongError", 400, s3.put_object, Bucket="objects", Key="x" * 1025, Body=b"")

    def delete_objects(self):
        for number in range(5):
            s3.put_object(Bucket="objects", Key=f"many/{number}&<'>", Body=b"x")
        wanted = [{"Key": f"many/{number}&<'>"} for number in range(4)] + [{"Key": "many/missing"}]
        answer = s3.delete_objects(Bucket="objects", Delete={"Objects": wanted})
        assert [entry["Key"] for entry in answer["Deleted"]] == [entry["Key"] for entry in wanted], answer
        assert "Errors" not in answer
        left = s3.list_objects_v2(Bucket="objects", Prefix="many/")["Contents"]
        assert [entry["Key"] for entry in left] == ["many/4&<'>"]
        answer = s3.delete_objects(Bucket="objects", Delete={"Objects": [{"Key": "many/4&<'>"}], "Quiet": True})
        assert "Deleted" not in answer and "Errors" not in answer
        too_many = [{"Key": str(number)} for number in range(1001)]
        refused("MalformedXML", 400, s3.delete_objects, Bucket="objects", Delete={"Objects": too_many})

    def the_transfer_manager(self):
        data = sample(30 * MIB + 1)
        path = os.path.join(os.environ.get("TMPDIR", "/var/tmp"), f"anvil-boto3-{os.getpid()}")
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=6)
        try:
            with open(path, "wb") as file:
                file.write(data)
            s3.upload_file(path, "objects", "transfer", Config=config, ExtraArgs={"Metadata": {"by": "transfer"}})
            os.truncate(path, 0)
            s3.download_file("objects", "transfer", path, Config=config)
            with open(path, "rb") as file:
                assert file.read() == data
        finally:
            os.unlink(path)
        assert s3.head_object(Bucket="objects", Key="transfer")["Metadata"] == {"by": "transfer"}


class Listing:
    def __init__(self):
        s3.create_bucket(Bucket="listing")
        self.keys = sorted(
            [f"photos/2024/{number:02}.jpg" for number in range(12)]
            + [f"photos/2025/{number:02}.jpg" for number in range(3)]
            + ["photos", "photos/", "photos/cover", "readme", "zoo/z", "a b+c", "ä/ö", "photos0", "\x01control"],
            key=lambda key: key.encode(),
        )
        for key in self.keys:
            s3.put_object(Bucket="listing", Key=key, Body=key.encode())

    def whole(self):
        answer = s3.list_objects_v2(Bucket="listing")
        assert [entry["Key"] for entry in answer["Contents"]] == self.keys
        assert (answer["KeyCount"], answer["IsTruncated"], answer["MaxKeys"]) == (len(self.keys), False, 1000)
        for entry in answer["Contents"]:
            data = entry["Key"].encode()
            assert (entry["Size"], entry["ETag"]) == (len(data), f'"{hashlib.md5(data).hexdigest()}"')
            assert entry["StorageClass"] == "STANDARD"
        assert [entry["Key"] for entry in s3.list_objects(Bucket="listing")["Contents"]] == self.keys

    def delimiter_and_prefix(self):
        def page(**arguments):
            answer = s3.list_objects_v2(Bucket="listing", **arguments)
            keys = [entry["Key"] for entry in answer.get("Contents", [])]
            return keys, [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]

        assert page(Delimiter="/") == (["\x01control", "a b+c", "photos", "photos0", "readme"], ["photos/", "zoo/", "ä/"])
        assert page(Delimiter="/", Prefix="photos/") == (["photos/", "photos/cover"], ["photos/2024/", "photos/2025/"])
        assert page(Delimiter="/", Prefix="photos") == (["photos", "photos0"], ["photos/"])
        assert page(Delimiter="20", Prefix="photos/") == (["photos/", "photos/cover"], ["photos/20"])
        assert page(Prefix="photos/2025/")[0] == [f"photos/2025/{number:02}.jpg" for number in range(3)]
        assert page(Prefix="missing") == ([], [])

    def pages(self):
        for size in [1, 2, 3, 7, 100]:
            for arguments in [{}, {"Delimiter": "/"}, {"Delimiter": "/", "Prefix": "photos/"}, {"Prefix": "photos/2"}]:
                whole = s3.list_objects_v2(Bucket="listing", **arguments)
                names = [entry["Key"] for entry in whole.get("Contents", [])]
                names += [entry["Prefix"] for entry in whole.get("CommonPrefixes", [])]
                for operation in ["list_objects_v2", "list_objects"]:
                    found = []
                    pages = s3.get_paginator(operation).paginate(
                        Bucket="listing", PaginationConfig={"PageSize": size}, **arguments
                    )
                    for page in pages:
                        entries = [entry["Key"] for entry in page.get("Contents", [])]
                        entries += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
                        assert len(entries) <= size, (operation, size)
                        found += entries
                    assert sorted(found) == sorted(names), (operation, size, arguments, found)

    def start_after_and_marker(self):
        after = s3.list_objects_v2(Bucket="listing", StartAfter="photos/2024/10.jpg")["Contents"]
        assert [entry["Key"] for entry in after] == self.keys[self.keys.index("photos/2024/10.jpg") + 1 :]
        after = s3.list_objects(Bucket="listing", Marker="photos/2024/10")["Contents"]
        assert [entry["Key"] for entry in after] == self.keys[self.keys.index("photos/2024/10.jpg") :]
        nothing = s3.list_objects_v2(Bucket="listing", MaxKeys=0)
        assert (nothing["KeyCount"], nothing["IsTruncated"]) == (0, False)

    def a_thousand_keys_are_a_page(self):
        s3.create_bucket(Bucket="thousand")
        for number in range(1003):
            s3.put_object(Bucket="thousand", Key=f"{number:05}", Body=b"")
        first = s3.list_objects_v2(Bucket="thousand", MaxKeys=5000)
        assert (first["KeyCount"], first["IsTruncated"]) == (1000, True)
        second = s3.list_objects_v2(Bucket="thousand", ContinuationToken=first["NextContinuationToken"])
        assert [entry["Key"] for entry in second["Contents"]] == ["01000", "01001", "01002"]

    def wrong_arguments(self):
        refused("InvalidArgument", 400, s3.list_objects_v2, Bucket="listing", MaxKeys=-1)
        refused("InvalidArgument", 400, s3.list_objects_v2, Bucket="listing", ContinuationToken="made up")
        refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="missing")
        refused("NoSuchBucket", 404, s3.list_objects, Bucket="missing")


class Multipart:
    def __init__(self):
        s3.create_bucket(Bucket="multipart")

    def begin(self, key, **arguments):
        here = {"Bucket": "multipart", "Key": key}
        return {**here, "UploadId": s3.create_multipart_upload(**here, **arguments)["UploadId"]}

    def parts(self, upload, *bodies):
        def part(number, data):
            tag = s3.upload_part(PartNumber=number, Body=data, **upload)["ETag"]
            return {"PartNumber": number, "ETag": tag}

        return [part(number, data) for number, data in bodies]

    def complete(self):
        bodies = [(1, sample(5 * MIB, 1)), (2, sample(6 * MIB + 1, 2)), (7, sample(100, 7))]
        upload = self.begin("whole", ContentType="text/x", Metadata={"a": "b"})
        refused("NoSuchKey", 404, s3.get_object, Bucket="multipart", Key="whole")
        parts = self.parts(upload, *bodies)
        answer = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        sums = b"".join(hashlib.md5(data).digest() for _, data in bodies)
        tag = f'"{hashlib.md5(sums).hexdigest()}-3"'
        assert answer["ETag"] == tag, answer
        assert (answer["Bucket"], answer["Key"]) == ("multipart", "whole")
        again = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        assert again["ETag"] == tag, "a repeat is answered alike"
        data = b"".join(data for _, data in bodies)
        answer = s3.get_object(Bucket="multipart", Key="whole")
        assert answer["Body"].read() == data
        assert (answer["ETag"], answer["ContentType"], answer["Metadata"]) == (tag, "text/x", {"a": "b"})
        for start, end in [(5 * MIB - 1, 5 * MIB + 1), (0, 11 * MIB), (11 * MIB + 1, 11 * MIB + 101), (MIB, 10 * MIB)]:
            assert body("multipart", "whole", Range=f"bytes={start}-{end - 1}") == data[start:end], (start, end)
        listed = s3.list_objects_v2(Bucket="multipart", Prefix="whole")["Contents"][0]
        assert (listed["ETag"], listed["Size"]) == (tag, len(data))

    def listed_parts_and_uploads(self):
        first, second = self.begin("list/b"), self.begin("list/a")
        parts = self.parts(first, (3, b"three"), (1, b"one"), (2, b"two"))
        answer = s3.list_parts(**first)
        assert [part["PartNumber"] for part in answer["Parts"]] == [1, 2, 3]
        assert [part["Size"] for part in answer["Parts"]] == [3, 3, 5]
        assert sorted(part["ETag"] for part in answer["Parts"]) == sorted(part["ETag"] for part in parts)
        answer = s3.list_parts(MaxParts=2, **first)
        assert (answer["IsTruncated"], answer["NextPartNumberMarker"]) == (True, 2)
        answer = s3.list_parts(PartNumberMarker=2, **first)
        assert [part["PartNumber"] for part in answer["Parts"]] == [3] and not answer["IsTruncated"]
        answer = s3.list_multipart_uploads(Bucket="multipart", Prefix="list/")
        found = [(upload["Key"], upload["UploadId"]) for upload in answer["Uploads"]]
        assert found == [("list/a", second["UploadId"]), ("list/b", first["UploadId"])], found
        answer = s3.list_multipart_uploads(Bucket="multipart", Delimiter="/")
        assert [entry["Prefix"] for entry in answer["CommonPrefixes"]] == ["list/"]
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket="multipart", PaginationConfig={"PageSize": 1})
        assert [upload["Key"] for page in pages for upload in page.get("Uploads", [])] == ["list/a", "list/b"]
        s3.abort_multipart_upload(**first)
        s3.abort_multipart_upload(**second)
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="multipart")

    def aborted(self):
        upload = self.begin("aborted")
        parts = self.parts(upload, (1, b"x"))
        s3.abort_multipart_upload(**upload)
        refused("NoSuchUpload", 404, s3.upload_part, PartNumber=2, Body=b"y", **upload)
        refused("NoSuchUpload", 404, s3.list_parts, **upload)
        refused("NoSuchUpload", 404, s3.complete_multipart_upload, MultipartUpload={"Parts": parts}, **upload)
        refused("NoSuchKey", 404, s3.get_object, Bucket="multipart", Key="aborted")

    def the_last_upload_of_a_part_wins(self):
        upload = self.begin("twice")
        self.parts(upload, (1, sample(5 * MIB, 1)), (2, b"first"))
        parts = self.parts(upload, (1, sample(5 * MIB, 2)), (2, b"second"))
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        assert body("multipart", "twice") == sample(5 * MIB, 2) + b"second"

    def unlisted_parts_are_left_out(self):
        upload = self.begin("unlisted")
        parts = self.parts(upload, (1, sample(5 * MIB)), (2, b"left out"), (3, b"end"))
        s3.complete_multipart_upload(MultipartUpload={"Parts": [parts[0], parts[2]]}, **upload)
        assert body("multipart", "unlisted") == sample(5 * MIB) + b"end"

    def wrong_completions(self):
        upload = self.begin("wrong")
        parts = self.parts(upload, (1, sample(5 * MIB)), (2, b"too small"), (3, b"end"))

        def complete(code, *named):
            refused(code, 400, s3.complete_multipart_upload, MultipartUpload={"Parts": list(named)}, **upload)

        complete("EntityTooSmall", *parts)
        complete("InvalidPartOrder", parts[1], parts[0])
        complete("InvalidPart", parts[0], {"PartNumber": 9, "ETag": parts[1]["ETag"]})
        complete("InvalidPart", {"PartNumber": 1, "ETag": parts[1]["ETag"]})
        complete("MalformedXML")
        refused("InvalidArgument", 400, s3.upload_part, PartNumber=10001, Body=b"x", **upload)
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts[:2]}, **upload)
        assert body("multipart", "wrong") == sample(5 * MIB) + b"too small", "the last part may be small"

    def completed_only_where_nothing_is(self):
        s3.put_object(Bucket="multipart", Key="taken", Body=b"first")
        upload = self.begin("taken")
        parts = self.parts(upload, (1, b"second"))
        refused(
            "PreconditionFailed", 412, s3.complete_multipart_upload,
            MultipartUpload={"Parts": parts}, IfNoneMatch="*", **upload,
        )
        assert body("multipart", "taken") == b"first"
        s3.abort_multipart_upload(**upload)

    def uploads_that_are_not_there(self):
        nowhere = {"Bucket": "multipart", "Key": "nowhere", "UploadId": "0123456789abcdef0123456789abcdef"}
        refused("NoSuchUpload", 404, s3.upload_part, PartNumber=1, Body=b"", **nowhere)
        refused("NoSuchUpload", 404, s3.abort_multipart_upload, **nowhere)
        refused("NoSuchUpload", 404, s3.list_parts, **{**nowhere, "UploadId": "not an id"})
        upload = self.begin("mine")
        refused("NoSuchUpload", 404, s3.upload_part, PartNumber=1, Body=b"", **{**upload, "Key": "other"})
        s3.abort_multipart_upload(**upload)
        refused("NoSuchBucket", 404, s3.create_multipart_upload, Bucket="missing", Key="x")


    def parts_by_number(self):
        bodies = [(1, sample(5 * MIB, 1)), (3, sample(5 * MIB + 9, 3)), (9, b"end")]
        upload = self.begin("numbered", ChecksumAlgorithm="CRC32")
        parts = []
        for number, data in bodies:
            answer = s3.upload_part(PartNumber=number, Body=data, ChecksumAlgorithm="CRC32", **upload)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        here = {"Bucket": "multipart", "Key": "numbered"}
        whole = s3.head_object(**here)
        start = 0
        for (number, data), part in zip(bodies, parts):
            for call in [s3.get_object, s3.head_object]:
                answer = call(PartNumber=number, ChecksumMode="ENABLED", **here)
                assert (answer["PartsCount"], answer["ContentLength"]) == (3, len(data)), answer
                place = f"bytes {start}-{start + len(data) - 1}/{whole['ContentLength']}"
                got = answer["ResponseMetadata"]["HTTPHeaders"]["content-range"]
                assert (answer["ResponseMetadata"]["HTTPStatusCode"], got) == (206, place), answer
                assert answer["ChecksumCRC32"] == part["ChecksumCRC32"], answer
                assert answer["ETag"] == whole["ETag"]
            assert body("multipart", "numbered", PartNumber=number) == data
            start += len(data)
        for number in [2, 10]:
            refused("InvalidPartNumber", 416, s3.get_object, PartNumber=number, **here)
            refused("416", 416, s3.head_object, PartNumber=number, **here)
        refused("InvalidRequest", 400, s3.get_object, PartNumber=1, Range="bytes=0-1", **here)
        s3.put_object(Bucket="multipart", Key="single", Body=b"whole")
        answer = s3.get_object(Bucket="multipart", Key="single", PartNumber=1)
        assert answer["Body"].read() == b"whole" and "PartsCount" not in answer, answer
        assert answer["ContentRange"] == "bytes 0-4/5", answer
        refused("InvalidPartNumber", 416, s3.get_object, Bucket="multipart", Key="single", PartNumber=2)

        wanted = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
        answer = s3.get_object_attributes(ObjectAttributes=wanted, MaxParts=2, **here)
        assert f'"{answer["ETag"]}"' == whole["ETag"]
        assert (answer["ObjectSize"], answer["StorageClass"]) == (whole["ContentLength"], "STANDARD")
        assert answer["Checksum"]["ChecksumType"] == "COMPOSITE" and answer["Checksum"]["ChecksumCRC32"].endswith("-3")
        listed = answer["ObjectParts"]
        assert (listed["TotalPartsCount"], listed["IsTruncated"], listed["NextPartNumberMarker"]) == (3, True, 3), listed
        rest = s3.get_object_attributes(ObjectAttributes=["ObjectParts"], PartNumberMarker=3, **here)["ObjectParts"]
        found = [(part["PartNumber"], part["Size"], part["ChecksumCRC32"]) for part in listed["Parts"] + rest["Parts"]]
        expected = [(number, len(data), part["ChecksumCRC32"]) for (number, data), part in zip(bodies, parts)]
        assert found == expected and not rest["IsTruncated"], found
        answer = s3.get_object_attributes(Bucket="multipart", Key="single", ObjectAttributes=wanted)
        assert answer["ObjectSize"] == 5 and "ObjectParts" not in answer, answer
        refused("NoSuchKey", 404, s3.get_object_attributes, Bucket="multipart", Key="none", ObjectAttributes=wanted)


class Checksums:
    def __init__(self):
        s3.create_bucket(Bucket="checksums")

    DATA = b"123456789"
    VALUES = {
        "CRC32": base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode(),
        "CRC32C": base64.b64encode(bytes.fromhex("e3069283")).decode(),
        "CRC64NVME": base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode(),
        "SHA1": base64.b64encode(hashlib.sha1(DATA).digest()).decode(),
        "SHA256": base64.b64encode(hashlib.sha256(DATA).digest()).decode(),
    }

    def given_ones_are_kept_and_told(self):
        for name, value in self.VALUES.items():
            field, here = f"Checksum{name}", {"Bucket": "checksums", "Key": name}
            answer = s3.put_object(Body=self.DATA, **{field: value}, **here)
            assert answer[field] == value, (name, answer)
            for call in [s3.get_object, s3.head_object]:
                answer = call(ChecksumMode="ENABLED", **here)
                assert answer[field] == value, (name, call.__name__)
                assert answer["ChecksumType"] == "FULL_OBJECT"

    def wrong_ones_are_refused(self):
        for name, value in self.VALUES.items():
            other = base64.b64encode(bytes(len(base64.b64decode(value)))).decode()
            here = {"Bucket": "checksums", "Key": f"wrong-{name}"}
            refused("BadDigest", 400, s3.put_object, Body=self.DATA, **{f"Checksum{name}": other}, **here)
            refused("InvalidRequest", 400, s3.put_object, Body=self.DATA, **{f"Checksum{name}": "AAA="}, **here)
            refused("404", 404, s3.head_object, **here)

    def computed_by_boto3(self):
        for name in ["CRC32", "SHA1", "SHA256"]:
            here = {"Bucket": "checksums", "Key": f"computed-{name}"}
            answer = s3.put_object(Body=self.DATA, ChecksumAlgorithm=name, **here)
            assert answer[f"Checksum{name}"] == self.VALUES[name], answer
            assert s3.get_object(ChecksumMode="ENABLED", **here)["Body"].read() == self.DATA

    def content_md5(self):
        right = base64.b64encode(hashlib.md5(self.DATA).digest()).decode()
        wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
        here = {"Bucket": "checksums", "Key": "md5"}
        s3.put_object(Body=self.DATA, ContentMD5=right, **here)
        refused("BadDigest", 400, s3.put_object, Body=b"changed!!", ContentMD5=wrong, **here)
        refused("InvalidDigest", 400, s3.put_object, Body=b"changed!!", ContentMD5="AAA=", **here)
        assert body("checksums", "md5") == self.DATA

    def of_parts_and_their_object(self):
        bodies = [sample(5 * MIB, 1), sample(5 * MIB, 2), b"end"]
        for kind in ["COMPOSITE", "FULL_OBJECT"]:
            here = {"Bucket": "checksums", "Key": f"parts-{kind}"}
            created = s3.create_multipart_upload(ChecksumAlgorithm="CRC32", ChecksumType=kind, **here)
            upload, parts = {**here, "UploadId": created["UploadId"]}, []
            for number, data in enumerate(bodies, 1):
                answer = s3.upload_part(PartNumber=number, Body=data, ChecksumAlgorithm="CRC32", **upload)
                value = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
                assert answer["ChecksumCRC32"] == value
                parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": value})
            listed = s3.list_parts(**upload)["Parts"]
            assert [part["ChecksumCRC32"] for part in listed] == [part["ChecksumCRC32"] for part in parts]
            answer = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
            if kind == "COMPOSITE":
                sums = b"".join(zlib.crc32(data).to_bytes(4, "big") for data in bodies)
                expected = base64.b64encode(zlib.crc32(sums).to_bytes(4, "big")).decode() + "-3"
            else:
                expected = base64.b64encode(zlib.crc32(b"".join(bodies)).to_bytes(4, "big")).decode()
            assert answer["ChecksumCRC32"] == expected, (kind, answer)
            head = s3.head_object(ChecksumMode="ENABLED", **here)
            assert (head["ChecksumCRC32"], head["ChecksumType"]) == (expected, kind), head

    def unsigned_and_chunked_bodies(self):
        data = sample(3 * MIB + 3)
        unsigned = client(config={"s3": {"payload_signing_enabled": False}})
        unsigned.put_object(Bucket="checksums", Key="unsigned", Body=data)
        assert body("checksums", "unsigned") == data
        plain = client(config={"request_checksum_calculation": "when_required"})
        plain.put_object(Bucket="checksums", Key="plain", Body=data)
        assert body("checksums", "plain") == data


class Copies:
    def __init__(self):
        s3.create_bucket(Bucket="copies")
        s3.create_bucket(Bucket="copies-2")
        s3.create_bucket(Bucket="source")

    def with_and_without_metadata(self):
        data = sample(2 * MIB + 5)
        given = {"ContentType": "text/x", "CacheControl": "no-cache", "Metadata": {"a": "b"}}
        tag = s3.put_object(Bucket="source", Key="k", Body=data, WebsiteRedirectLocation="/there", **given)["ETag"]
        answer = s3.copy_object(Bucket="copies", Key="kept", CopySource="source/k", ContentType="passed/over")
        assert answer["CopyObjectResult"]["ETag"] == tag, answer
        head = s3.head_object(Bucket="copies", Key="kept")
        assert head["LastModified"] == answer["CopyObjectResult"]["LastModified"], (head, answer)
        assert {name: head[name] for name in given} == given and head["ETag"] == tag, head
        assert "WebsiteRedirectLocation" not in head
        s3.copy_object(
            Bucket="copies-2", Key="replaced", CopySource={"Bucket": "source", "Key": "k"},
            MetadataDirective="REPLACE", TaggingDirective="REPLACE", ContentType="text/y", Metadata={"c": "d"},
        )
        head = s3.head_object(Bucket="copies-2", Key="replaced")
        assert (head["ContentType"], head["Metadata"]) == ("text/y", {"c": "d"}) and "CacheControl" not in head, head
        s3.put_object(Bucket="source", Key="k", Body=b"other")
        s3.delete_object(Bucket="source", Key="k")
        assert body("copies", "kept") == body("copies-2", "replaced") == data
        assert body("copies", "kept", Range=f"bytes={MIB - 1}-{MIB}") == data[MIB - 1 : MIB + 1]

    def sources_are_named_by_any_key(self):
        for key in ["a b", "plus+plus", "per%20cent", "what?versionId=x", "/leading", "ümläut/😀", "&='\"<>"]:
            s3.put_object(Bucket="source", Key=key, Body=key.encode())
            s3.copy_object(Bucket="copies", Key=key, CopySource={"Bucket": "source", "Key": key})
            assert body("copies", key) == key.encode()
            source = {"Bucket": "source", "Key": key, "VersionId": "null"}
            s3.copy_object(Bucket="copies", Key=key + "2", CopySource=source)
            assert body("copies", key + "2") == key.encode()

    def onto_itself(self):
        here = {"Bucket": "source", "Key": "self", "CopySource": "source/self"}
        s3.put_object(Bucket="source", Key="self", Body=b"itself", Metadata={"a": "b"})
        refused("InvalidRequest", 400, s3.copy_object, **here)
        s3.copy_object(MetadataDirective="REPLACE", Metadata={"c": "d"}, **here)
        answer = s3.get_object(Bucket="source", Key="self")
        assert (answer["Body"].read(), answer["Metadata"]) == (b"itself", {"c": "d"})

    def what_cannot_be_copied(self):
        to = {"Bucket": "copies", "Key": "never"}
        answer = refused("NoSuchKey", 404, s3.copy_object, CopySource="source/missing", **to)
        assert answer["Error"]["Key"] == "missing", answer
        answer = refused("NoSuchBucket", 404, s3.copy_object, CopySource="not-there/k", **to)
        assert answer["Error"]["BucketName"] == "not-there", answer
        refused("NoSuchBucket", 404, s3.copy_object, CopySource="source/self", Bucket="not-there", Key="k")
        refused("InvalidArgument", 400, s3.copy_object, CopySource="source", **to)
        version = {"Bucket": "source", "Key": "self", "VersionId": "3sL4kqtJlcpXroDTDmJ"}
        refused("InvalidArgument", 400, s3.copy_object, CopySource=version, **to)
        refused("InvalidArgument", 400, s3.copy_object, CopySource="source/self", MetadataDirective="MIX", **to)
        refused("404", 404, s3.head_object, **to)

    def conditions(self):
        tag = s3.put_object(Bucket="source", Key="if", Body=b"1")["ETag"]
        time = s3.head_object(Bucket="source", Key="if")["LastModified"]
        to = {"Bucket": "copies", "Key": "if", "CopySource": "source/if"}
        refused("PreconditionFailed", 412, s3.copy_object, CopySourceIfMatch='"other"', **to)
        refused("PreconditionFailed", 412, s3.copy_object, CopySourceIfNoneMatch=tag, **to)
        refused("PreconditionFailed", 412, s3.copy_object, CopySourceIfModifiedSince=time, **to)
        s3.copy_object(CopySourceIfMatch=tag, CopySourceIfUnmodifiedSince=time, IfNoneMatch="*", **to)
        refused("PreconditionFailed", 412, s3.copy_object, IfNoneMatch="*", **to)
        refused("PreconditionFailed", 412, s3.copy_object, IfMatch='"other"', **to)
        s3.copy_object(IfMatch=tag, **to)

    def of_parts(self):
        bodies = [sample(5 * MIB, 1), sample(5 * MIB + 3, 2), b"end"]
        here = {"Bucket": "source", "Key": "parts"}
        upload = {**here, "UploadId": s3.create_multipart_upload(ChecksumAlgorithm="SHA1", **here)["UploadId"]}
        parts = []
        for number, data in enumerate(bodies, 1):
            answer = s3.upload_part(PartNumber=number, Body=data, ChecksumAlgorithm="SHA1", **upload)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA1": answer["ChecksumSHA1"]})
        made = s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        data = b"".join(bodies)
        copied = s3.copy_object(Bucket="copies", Key="parts", CopySource="source/parts")["CopyObjectResult"]
        assert (copied["ETag"], copied["ChecksumSHA1"]) == (made["ETag"], made["ChecksumSHA1"]), copied
        summed = s3.copy_object(Bucket="copies", Key="summed", CopySource="source/parts", ChecksumAlgorithm="SHA256")
        value = base64.b64encode(hashlib.sha256(data).digest()).decode()
        assert summed["CopyObjectResult"]["ChecksumSHA256"] == value, summed
        s3.delete_object(**here)
        for key in ["parts", "summed"]:
            assert body("copies", key) == data
            answer = s3.get_object(Bucket="copies", Key=key, PartNumber=2)
            assert (answer["Body"].read(), answer["PartsCount"]) == (bodies[1], 3)
        assert s3.head_object(Bucket="copies", Key="summed", ChecksumMode="ENABLED")["ChecksumSHA256"] == value

    def parts_of_what_is_there(self):
        single, data = sample(11 * MIB + 7, 3), sample(6 * MIB, 4)
        s3.put_object(Bucket="source", Key="single", Body=single)
        here = {"Bucket": "copies", "Key": "assembled"}
        upload = {**here, "UploadId": s3.create_multipart_upload(**here)["UploadId"]}

        def part(number, expected, **arguments):
            answer = s3.upload_part_copy(PartNumber=number, **arguments, **upload)["CopyPartResult"]
            tag = f'"{hashlib.md5(expected).hexdigest()}"'
            assert answer["ETag"] == tag, (number, answer)
            return {"PartNumber": number, "ETag": tag}

        place = f"bytes={3 * MIB + 1}-{9 * MIB}"
        parts = [
            part(1, single, CopySource="source/single"),
            part(2, single[3 * MIB + 1 : 9 * MIB + 1], CopySource="source/single", CopySourceRange=place),
        ]
        parts.append({"PartNumber": 3, "ETag": s3.upload_part(PartNumber=3, Body=data, **upload)["ETag"]})
        wrong = {"CopySource": "source/single", "PartNumber": 4, **upload}
        refused("InvalidArgument", 400, s3.upload_part_copy, CopySourceRange=f"bytes=0-{12 * MIB}", **wrong)
        refused("InvalidArgument", 400, s3.upload_part_copy, CopySourceRange="bytes=5-", **wrong)
        refused("NoSuchKey", 404, s3.upload_part_copy, **{**wrong, "CopySource": "source/none"})
        refused("NoSuchUpload", 404, s3.upload_part_copy, **{**wrong, "UploadId": "0" * 32})
        refused("PreconditionFailed", 412, s3.upload_part_copy, CopySourceIfMatch='"other"', **wrong)
        assert [entry["Size"] for entry in s3.list_parts(**upload)["Parts"]] == [len(single), 6 * MIB, 6 * MIB]
        s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload)
        s3.delete_object(Bucket="source", Key="single")
        whole = single + single[3 * MIB + 1 : 9 * MIB + 1] + data
        assert body("copies", "assembled") == whole

        # Ranges across the parts of a copy, by an upload with checksums.
        twice = {"Bucket": "copies-2", "Key": "assembled"}
        upload = {**twice, "UploadId": s3.create_multipart_upload(ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT", **twice)["UploadId"]}
        border = len(single)
        place = f"bytes={border - 5 * MIB}-{border + 6 * MIB + 9}"
        first = part(1, whole[border - 5 * MIB : border + 6 * MIB + 10], CopySource="copies/assembled", CopySourceRange=place)
        second = part(2, whole[:3], CopySource="copies/assembled", CopySourceRange="bytes=0-2")
        expected = whole[border - 5 * MIB : border + 6 * MIB + 10] + whole[:3]
        made = s3.complete_multipart_upload(MultipartUpload={"Parts": [first, second]}, **upload)
        assert made["ChecksumCRC32"] == base64.b64encode(zlib.crc32(expected).to_bytes(4, "big")).decode(), made
        s3.delete_object(**here)
        assert body("copies-2", "assembled") == expected
        assert body("copies-2", "assembled", PartNumber=1) == expected[:-3]

    def the_transfer_manager(self):
        data = sample(23 * MIB + 11)
        s3.put_object(Bucket="source", Key="managed", Body=data, Metadata={"a": "b"})
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB)
        s3.copy({"Bucket": "source", "Key": "managed"}, "copies", "managed", Config=config)
        assert body("copies", "managed") == data

    def a_copy_is_of_one_version(self):
        versions = [bytes([number]) * (100_000 + number) for number in range(8)]
        s3.put_object(Bucket="source", Key="moving", Body=versions[0])
        writer = client(config={"max_pool_connections": 12})

        def overwrite(number):
            writer.put_object(Bucket="source", Key="moving", Body=versions[number % 8])

        def copy(number):
            writer.copy_object(Bucket="copies", Key=f"moving-{number}", CopySource="source/moving")
            assert body("copies", f"moving-{number}") in versions, number

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            work = [pool.submit(task, number) for number in range(60) for task in (overwrite, copy)]
            for done in work:
                done.result()


class VirtualHosts:
    """For a node with the domains s3.localhost and example.test."""

    def __init__(self):
        resolve = socket.getaddrinfo

        def to_the_node(host, *arguments, **named):
            ours = isinstance(host, str) and host.endswith((".localhost", ".test"))
            return resolve("127.0.0.1" if ours else host, *arguments, **named)

        socket.getaddrinfo = to_the_node
        self.port = os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]

    def virtual(self, domain="s3.localhost"):
        style = {"s3": {"addressing_style": "virtual"}}
        return client(config=style, endpoint_url=f"http://{domain}:{self.port}")

    def buckets_in_the_host(self):
        for domain, bucket in [("s3.localhost", "hosted"), ("s3.localhost", "with.dots.in-it"), ("example.test", "other")]:
            virtual = self.virtual(domain)
            virtual.create_bucket(Bucket=bucket)
            for key in ["a b/ü+%", "metrics", "ready", bucket + "/k", "/leading"]:
                virtual.put_object(Bucket=bucket, Key=key, Body=key.encode())
                assert body(bucket, key) == key.encode(), key
                assert virtual.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
            assert virtual.list_objects_v2(Bucket=bucket)["KeyCount"] == 5
            virtual.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "ready"})
            address = virtual.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "copy"}, ExpiresIn=60)
            assert f"//{bucket}.{domain}:{self.port}/copy?" in address, address
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert opener.open(address, timeout=30).read() == b"ready"
            upload = {"Bucket": bucket, "Key": "parts", "UploadId": virtual.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]}
            tag = virtual.upload_part(PartNumber=1, Body=b"part", **upload)["ETag"]
            parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
            made = virtual.complete_multipart_upload(MultipartUpload=parts, **upload)
            assert made["Location"] == f"http://{bucket}.{domain}:{self.port}/parts", made
        names = [bucket["Name"] for bucket in self.virtual().list_buckets()["Buckets"]]
        assert names == ["hosted", "other", "with.dots.in-it"], names

    def what_is_not_a_bucket(self):
        virtual = self.virtual()
        refused("NoSuchBucket", 404, virtual.list_objects_v2, Bucket="missing")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def anonymous(host, path):
            try:
                with opener.open(f"http://{host}:{self.port}{path}", timeout=30) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        assert [anonymous("s3.localhost", path) for path in ["/", "/ready", "/metrics"]] == [200, 200, 200]
        assert [anonymous("hosted.s3.localhost", path) for path in ["/", "/ready", "/metrics"]] == [403, 403, 403]


class Refusals:
    def __init__(self):
        s3.create_bucket(Bucket="refusals")
        s3.put_object(Bucket="refusals", Key="key", Body=b"unharmed", Metadata={"a": "b"})

    def unharmed(self):
        answer = s3.get_object(Bucket="refusals", Key="key")
        assert answer["Body"].read() == b"unharmed" and answer["Metadata"] == {"a": "b"}, answer

    def what_is_not_there(self):
        answer = refused("NoSuchKey", 404, s3.get_object, Bucket="refusals", Key="missing")
        assert answer["Error"]["Key"] == "missing", answer
        assert answer["ResponseMetadata"]["RequestId"], answer
        refused("NoSuchBucket", 404, s3.get_object, Bucket="missing", Key="key")
        refused("NoSuchBucket", 404, s3.put_object, Bucket="missing", Key="key", Body=b"")
        refused("NoSuchBucket", 404, s3.delete_object, Bucket="missing", Key="key")
        refused("NoSuchBucket", 404, s3.delete_objects, Bucket="missing", Delete={"Objects": [{"Key": "a"}]})

    def strangers(self):
        stranger = client(aws_access_key_id="AKIASTRANGER00000000", aws_secret_access_key="x" * 40)
        refused("InvalidAccessKeyId", 403, stranger.list_buckets)
        refused("InvalidAccessKeyId", 403, stranger.put_object, Bucket="refusals", Key="key", Body=b"harm")
        forger = client(aws_secret_access_key="x" * 40, aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"])
        refused("SignatureDoesNotMatch", 403, forger.list_buckets)
        refused("SignatureDoesNotMatch", 403, forger.put_object, Bucket="refusals", Key="key", Body=b"harm" * MIB)
        refused("SignatureDoesNotMatch", 403, forger.delete_object, Bucket="refusals", Key="key")
        status, _, text = raw("GET", "/refusals/key")
        assert status == 403 and b"AccessDenied" in text, (status, text)
        status, _, text = raw("PUT", "/refusals/key", data=b"harm")
        assert status == 403, (status, text)
        self.unharmed()

    def presigned_addresses(self):
        def path(operation, **arguments):
            address = s3.generate_presigned_url(operation, Params={"Bucket": "refusals", **arguments}, ExpiresIn=60)
            return address[len(os.environ["AWS_ENDPOINT_URL"]) :]

        status, _, text = raw("GET", path("get_object", Key="key"))
        assert (status, text) == (200, b"unharmed"), (status, text)
        status, _, text = raw("PUT", path("put_object", Key="presigned"), data=b"by anybody")
        assert status == 200 and body("refusals", "presigned") == b"by anybody", (status, text)
        status, _, text = raw("GET", path("get_object", Key="key").replace("/key?", "/presigned?"))
        assert status == 403 and b"SignatureDoesNotMatch" in text, (status, text)
        status, _, text = raw("DELETE", path("get_object", Key="key"))
        assert status == 403, (status, text)
        self.unharmed()

    def other_regions(self):
        # Signed for another region. ListBuckets, because botocore repeats requests for a bucket in the right region.
        answer = refused("AuthorizationHeaderMalformed", 400, client(region_name="eu-central-1").list_buckets)
        assert answer["Error"]["Region"] == "us-east-1", answer
        # And that is how it finds the bucket.
        listed = client(region_name="eu-central-1").list_objects_v2(Bucket="refusals")
        assert listed["ResponseMetadata"]["RetryAttempts"] == 1

    def what_is_not_implemented_harms_nothing(self):
        here = {"Bucket": "refusals", "Key": "key"}
        tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
        for call, arguments in [
            (s3.put_object_tagging, {"Tagging": tags, **here}),
            (s3.delete_object_tagging, here),
            (s3.put_object_retention, {"Retention": {"Mode": "GOVERNANCE"}, **here}),
            (s3.put_object_legal_hold, {"LegalHold": {"Status": "ON"}, **here}),
            (s3.copy_object, {"CopySource": "refusals/key", "Tagging": "a=b", "TaggingDirective": "REPLACE", **here}),
            (s3.copy_object, {"CopySource": "refusals/key", "ServerSideEncryption": "AES256", **here}),
            (s3.put_object, {"Body": b"harm", "Tagging": "a=b", **here}),
            (s3.put_object, {"Body": b"harm", "ServerSideEncryption": "AES256", **here}),
            (s3.put_object, {"Body": b"harm", "ACL": "public-read", **here}),
            (s3.put_bucket_versioning, {"Bucket": "refusals", "VersioningConfiguration": {"Status": "Enabled"}}),
            (s3.put_bucket_policy, {"Bucket": "refusals", "Policy": "{}"}),
            (s3.delete_bucket_policy, {"Bucket": "refusals"}),
            (s3.delete_bucket_tagging, {"Bucket": "refusals"}),
            (s3.put_bucket_tagging, {"Bucket": "refusals", "Tagging": tags}),
            (s3.list_bucket_inventory_configurations, {"Bucket": "refusals"}),
            (s3.restore_object, {"RestoreRequest": {"Days": 1}, **here}),
        ]:
            refused("NotImplemented", 501, call, **arguments)
            self.unharmed()

    def storage_classes_that_the_node_does_not_know(self):
        here = {"Bucket": "refusals", "Key": "key", "StorageClass": "GLACIER"}
        refused("InvalidStorageClass", 400, s3.put_object, Body=b"x", **here)
        refused("InvalidStorageClass", 400, s3.create_multipart_upload, **here)
        refused("InvalidStorageClass", 400, s3.copy_object, CopySource="refusals/key", **here)
        self.unharmed()

    def versions_that_are_not_there(self):
        for call in [s3.get_object, s3.head_object, s3.delete_object]:
            code = "400" if call == s3.head_object else "InvalidArgument"
            refused(code, 400, call, Bucket="refusals", Key="key", VersionId="3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY")
        self.unharmed()

    def a_refusal_before_the_body_leaves_the_connection_good(self):
        for data in [b"", b"x" * 100, sample(MIB)]:
            here = {"Bucket": "refusals", "Key": "after"}
            refused("MetadataTooLarge", 400, s3.put_object, Body=data, Metadata={"a": "b" * 2048}, **here)
            s3.put_object(Body=data, **here)
            assert body("refusals", "after") == data

    def what_names_the_behaviour_of_today_is_taken(self):
        s3.put_object(Bucket="refusals", Key="plain", Body=b"x", ACL="private", StorageClass="STANDARD")
        s3.put_object(Bucket="refusals", Key="plain", Body=b"y", ACL="bucket-owner-full-control")
        assert body("refusals", "plain", ChecksumMode="ENABLED") == b"y"


def main():
    groups = {group.__name__.lower(): group for group in [Buckets, Objects, Listing, Multipart, Checksums, Copies, VirtualHosts, Refusals]}
    group = groups[sys.argv[1]]()
    helpers = {"begin", "parts", "unharmed", "virtual"}
    checks = [name for name, value in vars(type(group)).items() if callable(value) and name[0] != "_"]
    failed = []
    for name in checks:
        if name in helpers:
            continue
        try:
            getattr(group, name)()
            print(f"passed: {name}", flush=True)
        except Exception:  # each check is on its own; the rest is worth knowing too
            import traceback

            traceback.print_exc()
            failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
