"""Checks who may do what, as programs and their administrators find it: boto3 with the credentials of apps that `anvil admin`
made. Called with the binary, the data directory of the node and the name of a group; prints each check as it passes.

The endpoint and the credentials of the node's own app come from the environment.
"""

import json
import os
import subprocess
import sys

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

ANVIL, DATA, GROUP = sys.argv[1:4]
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]


def command(*words):
    arguments = [ANVIL, "admin", *words, "--endpoint", ENDPOINT, "--data-dir", DATA]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60)


def admin(*words):
    """What an administrator is told."""
    done = command(*words, "--output", "json")
    assert done.returncode == 0, (words, done.stderr)
    return json.loads(done.stdout)


def complaint(*words, code=1):
    """The one sentence of a refusal."""
    done = command(*words)
    assert done.returncode == code and done.stderr.startswith("anvil: "), (words, done)
    return done.stderr


def client(app=None, **config):
    """A client of an app, or of nobody, that shows every refusal as it came."""
    settings = Config(retries={"total_max_attempts": 1}, signature_version="s3v4" if app else UNSIGNED, **config)
    keys = {"aws_access_key_id": app["client_id"], "aws_secret_access_key": app["client_secret"]} if app else {}
    return boto3.client("s3", config=settings, endpoint_url=ENDPOINT, region_name="us-east-1", **keys)


def outcome(call, **arguments):
    """The code of the refusal, or `ok`."""
    try:
        call(**arguments)
        return "ok"
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        return {"403": "AccessDenied", "404": "NoSuchKey"}.get(code, code) if status != 503 else "503"


def denied(call, **arguments):
    got = outcome(call, **arguments)
    assert got == "AccessDenied", (call.__name__, arguments, got)


def allowed(call, **arguments):
    got = outcome(call, **arguments)
    assert got == "ok", (call.__name__, arguments, got)


def passed(check):
    print(f"passed: {check}")


def make(tenant, *apps):
    """A tenant with apps that may do everything in it."""
    admin("tenant", "create", tenant)
    made = []
    for name in apps:
        app = admin("app", "create", "--tenant-name", tenant, "--app-name", name)
        admin("policy", "grant", "--tenant-name", tenant, "--app-name", name, "--action", "*", "--resource", "*")
        made.append(app)
    return made


def actions():
    """Each action with its own grant, and without."""
    (owner,) = make("acme", "owner")
    owner = client(owner)
    owner.create_bucket(Bucket="docs")
    owner.create_bucket(Bucket="source")
    owner.put_object(Bucket="source", Key="k", Body=b"source")
    app = admin("app", "create", "web", "--tenant-name", "acme")
    s3 = client(app)

    def fresh():
        owner.put_object(Bucket="docs", Key="k", Body=b"body")

    operations = [
        ("bucket:list", "*", s3.list_buckets, {}),
        ("bucket:create", "made", s3.create_bucket, {"Bucket": "made"}),
        ("bucket:delete", "made", s3.delete_bucket, {"Bucket": "made"}),
        ("bucket:read", "docs", s3.head_bucket, {"Bucket": "docs"}),
        ("bucket:read", "docs", s3.get_bucket_location, {"Bucket": "docs"}),
        ("bucket:read", "docs", s3.get_bucket_acl, {"Bucket": "docs"}),
        ("object:list", "docs", s3.list_objects_v2, {"Bucket": "docs"}),
        ("object:list", "docs/a/*", s3.list_objects, {"Bucket": "docs", "Prefix": "a/"}),
        ("object:list", "docs", s3.list_object_versions, {"Bucket": "docs"}),
        ("object:list", "docs", s3.list_multipart_uploads, {"Bucket": "docs"}),
        ("object:read", "docs/k", s3.get_object, {"Bucket": "docs", "Key": "k"}),
        ("object:read", "docs/*", s3.head_object, {"Bucket": "docs", "Key": "k"}),
        ("object:read", "docs/k", s3.get_object_acl, {"Bucket": "docs", "Key": "k"}),
        ("object:read", "docs/k", s3.get_object_attributes, {"Bucket": "docs", "Key": "k", "ObjectAttributes": ["ETag"]}),
        ("object:write", "docs/k", s3.put_object, {"Bucket": "docs", "Key": "k", "Body": b"new"}),
        ("object:write", "docs/k", s3.create_multipart_upload, {"Bucket": "docs", "Key": "k"}),
        ("object:delete", "docs/k", s3.delete_object, {"Bucket": "docs", "Key": "k"}),
    ]
    for action, resource, call, arguments in operations:
        fresh()
        denied(call, **arguments)
        grant = ("--app-name", "web", "--action", action, "--resource", resource)
        admin("policy", "grant", *grant)
        allowed(call, **arguments)
        fresh()
        for other_action, _, other, other_arguments in operations:
            if other_action != action and not (other_action == "bucket:delete" and action == "bucket:create"):
                denied(other, **other_arguments)
        admin("policy", "revoke", *grant)
        denied(call, **arguments)
        if action == "bucket:create":
            passed("a bucket is made with a grant")
    passed("each action with its grant, and with no other")

    admin("policy", "grant", "--app-name", "web", "--action", "object:write", "--resource", "docs/*")
    copy = {"Bucket": "docs", "Key": "copy", "CopySource": {"Bucket": "source", "Key": "k"}}
    denied(s3.copy_object, **copy)
    admin("policy", "grant", "--app-name", "web", "--action", "object:read", "--resource", "source/*")
    allowed(s3.copy_object, **copy)
    passed("a copy needs its source too")

    admin("policy", "grant", "--app-name", "web", "--action", "object:delete", "--resource", "docs/tmp/*")
    for key in ["tmp/a", "kept"]:
        owner.put_object(Bucket="docs", Key=key, Body=b"x")
    answer = s3.delete_objects(Bucket="docs", Delete={"Objects": [{"Key": "tmp/a"}, {"Key": "kept"}]})
    assert [deleted["Key"] for deleted in answer["Deleted"]] == ["tmp/a"], answer
    assert [(error["Key"], error["Code"]) for error in answer["Errors"]] == [("kept", "AccessDenied")], answer
    allowed(owner.head_object, Bucket="docs", Key="kept")
    passed("of many deletions each is decided by itself")

    admin("policy", "grant", "--app-name", "web", "--action", "object:read", "--resource", "docs/*")
    assert outcome(s3.get_object, Bucket="docs", Key="missing") == "AccessDenied"
    admin("policy", "grant", "--app-name", "web", "--action", "object:list", "--resource", "docs")
    assert outcome(s3.get_object, Bucket="docs", Key="missing") == "NoSuchKey"
    passed("who may not list hears nothing of keys that are missing")


def isolation():
    """All rights of one tenant are none in another."""
    acme, beta = make("acme", "web")[0], make("beta", "web")[0]
    acme, beta = client(acme), client(beta)
    acme.create_bucket(Bucket="of-acme")
    acme.put_object(Bucket="of-acme", Key="secret", Body=b"of acme")
    beta.create_bucket(Bucket="of-beta")
    for key in ["secret", "missing"]:
        object = {"Bucket": "of-acme", "Key": key}
        for call, more in [
            (beta.get_object, {}),
            (beta.head_object, {}),
            (beta.put_object, {"Body": b"x"}),
            (beta.delete_object, {}),
            (beta.create_multipart_upload, {}),
            (beta.get_object_attributes, {"ObjectAttributes": ["ETag"]}),
        ]:
            denied(call, **object, **more)
        denied(beta.copy_object, Bucket="of-beta", Key="stolen", CopySource=object)
    for call in [beta.head_bucket, beta.list_objects_v2, beta.list_object_versions, beta.list_multipart_uploads, beta.delete_bucket]:
        denied(call, Bucket="of-acme")
    assert outcome(beta.create_bucket, Bucket="of-acme") == "BucketAlreadyExists"
    names = [[bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] for s3 in (acme, beta)]
    assert names == [["of-acme"], ["of-beta"]], names
    assert acme.get_object(Bucket="of-acme", Key="secret")["Body"].read() == b"of acme"
    passed("tenants do not see one another")

    own = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
    denied(own.get_object, Bucket="of-acme", Key="secret")
    assert outcome(own.create_bucket, Bucket="anvil-system") == "BucketAlreadyExists"
    if not os.environ.get("GLOBAL_DATABASE_URL"):
        denied(own.get_object, Bucket="anvil-system", Key="access/state.json")
    own.create_bucket(Bucket="of-default")
    allowed(own.put_object, Bucket="of-default", Key="k", Body=b"")
    denied(beta.get_object, Bucket="of-default", Key="k")
    passed("the node's own app has its own tenant, and no other")
    assert "there is no tenant" in complaint("app", "create", "--tenant-name", "gone", "--app-name", "x")
    assert "several tenants" in complaint("policy", "grant", "--app-name", "web", "--action", "*", "--resource", "*")
    assert "has apps" in complaint("tenant", "delete", "acme")
    admin("app", "delete", "web", "--tenant-name", "acme")
    assert outcome(acme.list_buckets) == "InvalidAccessKeyId"
    assert "has buckets" in complaint("tenant", "delete", "acme")
    passed("a tenant goes when nothing is left of it")


def public():
    """A public bucket is read by everybody, and no more than that."""
    acme, beta = make("acme", "web")[0], make("beta", "web")[0]
    acme, beta, nobody = client(acme), client(beta), client()
    acme.create_bucket(Bucket="shown")
    acme.put_object(Bucket="shown", Key="k", Body=b"for everybody")
    object = {"Bucket": "shown", "Key": "k"}
    for s3 in (nobody, beta):
        denied(s3.get_object, **object)
    told = admin("bucket", "set-public-access", "--bucket", "shown", "--allow")
    assert told == {"bucket": "shown", "tenant_name": "acme", "public": True}, told
    for s3 in (nobody, beta):
        assert s3.get_object(**object)["Body"].read() == b"for everybody"
        assert s3.get_object(**object, Range="bytes=4-12")["Body"].read() == b"everybody"
        assert s3.head_object(**object)["ContentLength"] == 13
        denied(s3.get_object, Bucket="shown", Key="missing")
        denied(s3.put_object, **object, Body=b"x")
        denied(s3.delete_object, **object)
        denied(s3.list_objects_v2, Bucket="shown")
        denied(s3.get_object_acl, **object)
        denied(s3.head_bucket, Bucket="shown")
        denied(s3.create_multipart_upload, **object)
    assert outcome(nobody.get_object, **object, ResponseContentType="text/html") == "InvalidRequest"
    allowed(acme.put_object, **object, Body=b"for everybody")
    passed("everybody reads a public bucket")

    admin("bucket", "set-public-access", "shown")
    for s3 in (nobody, beta):
        denied(s3.get_object, **object)
    allowed(acme.get_object, **object)
    admin("buckets", "set-public-access", "shown", "--allow")
    allowed(nobody.get_object, **object)
    acme.delete_object(**object)
    acme.delete_bucket(Bucket="shown")
    beta.create_bucket(Bucket="shown")
    beta.put_object(**object, Body=b"of beta")
    denied(nobody.get_object, **object)
    denied(acme.get_object, **object)
    assert beta.get_object(**object)["Body"].read() == b"of beta"
    passed("another bucket of that name is not public")
    assert "does not exist" in complaint("bucket", "set-public-access", "gone-bucket", "--allow")


def secrets():
    """A secret that was replaced, and an app that is gone, are good no more."""
    admin("tenants", "create", "--name", "acme")
    app = admin("apps", "create", "--tenant-name", "acme", "--app-name", "web")
    assert app["app_name"] == "web" and len(app["client_secret"]) == 40, app
    grant = ("--app-name", "web", "--action", "bucket:list", "--resource", "*")
    admin("policies", "grant", *grant)
    s3 = client(app)
    allowed(s3.list_buckets)
    again = admin("app", "reset-secret", "--app-name", "web")
    assert again["client_id"] == app["client_id"] and again["client_secret"] != app["client_secret"]
    assert outcome(s3.list_buckets) == "SignatureDoesNotMatch"
    s3 = client(again)
    allowed(s3.list_buckets)
    policies = admin("policy", "list", "--app-name", "web")
    assert [(policy["action"], policy["resource"]) for policy in policies] == [("bucket:list", "*")], policies
    admin("policy", "revoke", *grant)
    denied(s3.list_buckets)
    assert "was not granted" in complaint("policy", "revoke", *grant)
    assert "an action is one of" in complaint("policy", "grant", "--app-name", "web", "--action", "admin:*", "--resource", "*")
    assert [app["app_name"] for app in admin("app", "list")] == ["web"]
    assert admin("app", "show", "web")["client_id"] == app["client_id"]
    assert [tenant["name"] for tenant in admin("tenant", "list")] == ["acme", "default"]
    admin("app", "delete", "web")
    assert outcome(s3.list_buckets) == "InvalidAccessKeyId"
    admin("tenant", "delete", "acme")
    assert "there is no tenant" in complaint("tenant", "show", "acme")
    assert "already" in complaint("tenant", "create", "default")
    passed("what was taken away is gone at once")

    records = admin("audit", "list")
    did = [(record["action"], record["about"], record["result"]) for record in records]
    assert did[1] == ("tenant delete", "acme", "ok") and did[0][0] == "tenant create" and did[0][2] != "ok", did
    assert ("app create", "acme/web", "ok") in did and ("app reset-secret", app["client_id"], "ok") in did, did
    assert all(record["from"] == "127.0.0.1" and record["who"] for record in records), records
    assert app["client_secret"] not in json.dumps(records) and again["client_secret"] not in json.dumps(records)
    text = command("audit", "list", "--max", "1").stdout
    assert len(text.splitlines()) == 2 and text.startswith("TIME"), text
    passed("everything is in the audit")


def prepare():
    """What is to be there after a restart."""
    app = make("kept", "web")[0]
    s3 = client(app)
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="k", Body=b"kept")
    admin("bucket", "set-public-access", "kept", "--allow")
    with open(os.path.join(DATA, "kept-app.json"), "w") as file:
        json.dump(app, file)
    passed("prepared")


def kept():
    """It is there."""
    with open(os.path.join(DATA, "kept-app.json")) as file:
        app = json.load(file)
    for s3 in (client(app), client()):
        assert s3.get_object(Bucket="kept", Key="k")["Body"].read() == b"kept"
    denied(client().list_objects_v2, Bucket="kept")
    allowed(client(app).list_objects_v2, Bucket="kept")
    passed("kept")


def unknown():
    """The app is known no more, or its secret is not."""
    with open(os.path.join(DATA, "kept-app.json")) as file:
        app = json.load(file)
    assert outcome(client(app).list_buckets) == "InvalidAccessKeyId"
    app = admin("app", "reset-secret", "web")
    allowed(client(app).list_buckets)
    passed("an app gets a new secret")


{"actions": actions, "isolation": isolation, "public": public, "secrets": secrets, "prepare": prepare, "kept": kept, "unknown": unknown}[GROUP]()
