"""Checks who may do what, as programs and their administrators find it: boto3 with the credentials of apps that `anvil admin`
made. Called with the binary, the data directory of the node and the name of a group; prints each check as it passes.

The endpoint and the credentials of the node's own app come from the environment.
"""

import base64
import json
import os
import subprocess
import sys
import threading

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


def users():
    """People administrate with a password, as their roles allow, and every one of their actions has their name."""
    home = os.path.join(DATA, "home-of-users")

    def ask(*words, stdin=None, token=None, flags=()):
        """As whoever is logged in, or bears a token: without the node's data directory."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANVIL_", "XDG_"))}
        environment |= {"HOME": home} | ({"ANVIL_ADMIN_TOKEN": token} if token else {})
        arguments = [ANVIL, "admin", *words, "--endpoint", ENDPOINT, "--output", "json", *flags]
        return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=60, env=environment, cwd="/")

    def told(*words, **more):
        done = ask(*words, **more)
        assert done.returncode == 0, (words, done.stderr)
        return json.loads(done.stdout)

    def refused(what, *words, **more):
        done = ask(*words, **more)
        assert done.returncode == 1 and what in done.stderr, (words, done)

    def create(name, role, password):
        flags = ("--data-dir", DATA)
        email = f"{name}@example.com"
        words = ("user", "create", "--username", name, "--email", email, "--role", role, "--password-stdin")
        made = told(*words, stdin=password + "\n", flags=flags)
        assert (made["username"], made["email"], made["role"]) == (name, email, role), made

    def login(name, password):
        """His token."""
        return told("login", name, "--password-stdin", "--print", stdin=password)["access_token"]

    passwords = {"boss": "correct horse", "ann": "battery staple", "cem": "of a keeper!"}
    create("boss", "SuperAdmin", passwords["boss"])
    create("ann", "ReadOnlyViewer", passwords["ann"])
    admin("role", "create", "keeper", "--action", "disk:*", "--action", "repair:read", "--action", "user:*")
    create("cem", "keeper", passwords["cem"])
    roles = {role["name"]: role["actions"] for role in admin("role", "list")}
    assert roles == {"SuperAdmin": ["*:*"], "ReadOnlyViewer": ["*:read"], "keeper": ["disk:*", "repair:read", "user:*"]}, roles
    for wrong, what in [("short", "8 to 256 bytes"), ("", "8 to 256 bytes")]:
        refused(what, "user", "create", "eve", "--email", "e@f", "--role", "keeper", "--password-stdin", stdin=wrong, flags=("--data-dir", DATA))
    assert ask("disk", "list").returncode == 2, "nobody is logged in"
    passed("users are made")

    refused("UNAUTHENTICATED", "login", "ann", "--password-stdin", stdin="not this one")
    refused("UNAUTHENTICATED", "login", "nobody", "--password-stdin", stdin=passwords["ann"])
    said = told("login", "ann", "--password-stdin", stdin=passwords["ann"])
    assert (said["role"], said["expires_in"]) == ("ReadOnlyViewer", 3600), said
    # Without --data-dir: with the token that the login kept.
    for words in [("disk", "list"), ("repair", "status"), ("tenant", "list"), ("app", "list"), ("policy", "list"),
                  ("user", "list"), ("user", "show", "ann"), ("role", "list"), ("audit", "list"), ("storage-class", "list")]:
        told(*words)

    def everything():
        """Without the disks' sizes, which change by themselves."""
        disks = [(disk["id"], disk["path"], disk["state"]) for disk in admin("disk", "list")]
        return admin("tenant", "list"), admin("user", "list"), admin("role", "list"), disks

    before = everything()
    disk = before[3][0][0]
    for words in [("tenant", "create", "x"), ("tenant", "delete", "default"), ("disk", "offline", disk), ("disk", "online", disk),
                  ("disk", "replace", disk), ("disk", "adopt", "/x"), ("app", "create", "x", "--tenant-name", "default"),
                  ("app", "delete", "x"), ("app", "reset-secret", "x"),
                  ("policy", "grant", "--app-name", "x", "--action", "*", "--resource", "*"),
                  ("policy", "revoke", "--app-name", "x", "--action", "*", "--resource", "*"),
                  ("bucket", "set-public-access", "x-y-z", "--allow"), ("bucket", "update", "x-y-z", "--storage-class", "STANDARD"),
                  ("user", "update", "ann", "--role", "SuperAdmin"), ("user", "delete", "boss"),
                  ("role", "create", "x", "--action", "*:*"), ("role", "delete", "keeper")]:
        refused("PERMISSION_DENIED", *words)
    for wrong in [("boss",), ("cem",), ("ann", "--email", "x@y"), ("ann", "--role", "ReadOnlyViewer")]:
        refused("PERMISSION_DENIED", "user", "update", *wrong, "--password-stdin", stdin="taken over now")
    assert before == everything()
    # But for a password of one's own, which ends what was begun with the one before.
    told("user", "update", "ann", "--password-stdin", stdin="the viewer's own")
    refused("UNAUTHENTICATED", "disk", "list")
    refused("UNAUTHENTICATED", "login", "ann", "--password-stdin", stdin=passwords["ann"])
    passwords["ann"] = "the viewer's own"
    told("login", "ann", "--password-stdin", stdin=passwords["ann"])
    told("disk", "list")
    told("logout")
    assert ask("disk", "list").returncode == 2, "nobody is logged in any more"
    passed("a viewer sees everything and changes nothing")

    boss, cem = login("boss", passwords["boss"]), login("cem", passwords["cem"])
    told("tenant", "create", "of-boss", token=boss)
    told("disk", "list", token=cem)
    refused("PERMISSION_DENIED", "tenant", "list", token=cem)
    refused("PERMISSION_DENIED", "user", "update", "cem", "--role", "SuperAdmin", token=cem)
    refused("PERMISSION_DENIED", "user", "update", "boss", "--password-stdin", stdin="taken over now", token=cem)
    refused("PERMISSION_DENIED", "user", "delete", "boss", token=cem)
    # More than one disk cannot go: the attempt is in the audit all the same.
    refused("FAILED_PRECONDITION", "disk", "offline", disk, token=cem)
    told("disk", "online", disk, token=cem)
    passed("nobody gives what he has not")

    ann = login("ann", passwords["ann"])
    told("user", "update", "ann", "--role", "SuperAdmin", token=boss)
    told("tenant", "create", "of-ann", token=ann)
    told("user", "update", "ann", "--password-stdin", stdin="another password", token=boss)
    refused("UNAUTHENTICATED", "tenant", "list", token=ann)
    refused("UNAUTHENTICATED", "login", "ann", "--password-stdin", stdin=passwords["ann"])
    ann = login("ann", "another password")
    told("tenant", "list", token=ann)
    told("user", "delete", "ann", token=boss)
    refused("UNAUTHENTICATED", "tenant", "list", token=ann)
    refused("UNAUTHENTICATED", "tenant", "list", token=boss[:-4] + "AAAA")
    passed("another role, another password and a user who is gone count at once")

    records = admin("audit", "list")
    did = {(record["who"], record["action"], record["about"]): record["result"] for record in records}
    assert did["user:boss", "tenant create", "of-boss"] == "ok" and did["user:ann", "tenant create", "of-ann"] == "ok", did
    assert did["user:cem", "disk online", disk] == "ok" and "profile" in did["user:cem", "disk offline", disk], did
    assert "may do more" in did["user:cem", "user update", "cem: role SuperAdmin"], did
    assert did["user:ann", "login", "ReadOnlyViewer"] == "ok" and did["user:boss", "user delete", "ann"] == "ok", did
    assert not any(who == "user:ann" and action.startswith("disk") for who, action, _ in did), did
    text = json.dumps(records)
    assert not any(secret in text for secret in [*passwords.values(), "another password", "argon2", boss]), text
    passed("everything that was done has a name in the audit")


def grpc_of(action):
    """How tokens of an app are got and used, by grpcio."""
    import grpc
    import grpc_kit

    grpc_kit.generate(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../proto"))
    from anvil.v1 import auth_pb2, auth_pb2_grpc, bucket_pb2, bucket_pb2_grpc

    channel = grpc.insecure_channel(ENDPOINT.removeprefix("http://"))
    buckets = bucket_pb2_grpc.BucketServiceStub(channel)

    def get_token(app):
        request = auth_pb2.GetAccessTokenRequest(client_id=app["client_id"], client_secret=app["client_secret"])
        return auth_pb2_grpc.AuthServiceStub(channel).GetAccessToken(request, timeout=30).access_token

    def use(token, create=None):
        """The code that a call with this token ends with."""
        bearer = [("authorization", f"Bearer {token}")]
        try:
            if create:
                buckets.CreateBucket(bucket_pb2.CreateBucketRequest(bucket_name=create), metadata=bearer, timeout=30)
            else:
                buckets.ListBuckets(bucket_pb2.ListBucketsRequest(), metadata=bearer, timeout=30)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    action(get_token, use)


def tokens():
    """Tokens are made, denied, and signed with another key, while apps go on."""
    grpc_of(tokens_with)


def tokens_with(get_token, use):
    (app,) = make("mint", "minter")
    first = get_token(app)
    assert use(first) == "OK"
    minted = admin("mint-token", "--app-name", "minter", "--scope", "bucket:list|*", "--lifetime", "60")
    assert minted["expires_in"] == 60 and use(minted["access_token"]) == "OK", minted
    assert use(minted["access_token"], create="not-with-this") == "PERMISSION_DENIED"
    assert "3600 seconds at most" in complaint("mint-token", "--app-name", "minter", "--lifetime", "3601")
    assert "there is no app" in complaint("mint-token", "--app-name", "gone")
    passed("an administrator makes a token that is good for less")

    before = admin("cache-stats")
    assert admin("revoke-token", minted["token_id"]) == {"revoked": minted["token_id"]}
    assert (use(minted["access_token"]), use(first)) == ("UNAUTHENTICATED", "OK")
    second = get_token(app)
    arguments = [ANVIL, "admin", "revoke-token", "--token-stdin", "--endpoint", ENDPOINT, "--data-dir", DATA]
    subprocess.run(arguments, input=second + "\n", text=True, check=True, timeout=60, capture_output=True)
    assert (use(second), use(first)) == ("UNAUTHENTICATED", "OK")
    denied_tokens = admin("denylist")
    assert minted["token_id"] in [token["token_id"] for token in denied_tokens] and len(denied_tokens) == 2, denied_tokens
    assert admin("prune-denylist") == {"pruned": 0, "left": 2}, "none of them has ended"
    after = admin("cache-stats")
    assert after["known"] and after["revision"] == before["revision"] + 3 and after["revoked_tokens"] == 2, (before, after)
    assert after["published"] > before["published"] and after["apps"] == len(admin("app", "list")), (before, after)
    assert (after["ttl_seconds"] is None) == ("GLOBAL_DATABASE_URL" not in os.environ), after
    passed("a token that was denied is good no more, and no other")

    assert admin("rotate-key", "--kind", "jwt")["old_good_for"] == 3660
    third = get_token(app)
    key_id = lambda token: json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]
    assert key_id(first) != key_id(third) and (use(first), use(third), use(second)) == ("OK", "OK", "UNAUTHENTICATED")
    assert admin("rotate-key", "--kind", "jwt", "--at-once")["old_good_for"] == 0
    assert (use(first), use(third)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    fourth = get_token(app)
    assert use(fourth) == "OK" and admin("tenant", "list"), "administration goes on"
    assert "--at-once is of --kind jwt" in complaint("rotate-key", "--kind", "encryption", "--at-once", code=2)
    passed("tokens are signed with another key, with an overlap or without")

    records = json.dumps(admin("audit", "list"))
    for action in ["token mint", "token revoke", "rotate-key jwt", "denylist prune"]:
        assert f'"{action}"' in records, (action, records)
    assert not any(token in records for token in [first, second, third, fourth, minted["access_token"]])
    admin("app", "delete", "minter")
    assert use(fourth) == "UNAUTHENTICATED"
    passed("a token ends with its app")


def prepare_token():
    """A token, signed with a key that was drawn, that is to be good after a restart, and one that is not."""

    def prepare_with(get_token, use):
        admin("rotate-key", "--kind", "jwt")
        (app,) = make("signed", "signed")
        kept, gone = get_token(app), admin("mint-token", "--app-name", "signed")
        admin("revoke-token", gone["token_id"])
        with open(os.path.join(DATA, "kept-tokens.json"), "w") as file:
            json.dump([app, kept, gone["access_token"]], file)
        passed("prepared")

    grpc_of(prepare_with)


def kept_token():
    """It is, and the other one is not."""

    def kept_with(get_token, use):
        with open(os.path.join(DATA, "kept-tokens.json")) as file:
            app, kept, gone = json.load(file)
        assert (use(kept), use(gone), use(get_token(app))) == ("OK", "UNAUTHENTICATED", "OK")
        passed("kept")

    grpc_of(kept_with)


def reseal():
    """All secrets are sealed anew while apps come and go on."""
    with open(os.path.join(DATA, "kept-app.json")) as file:
        app = json.load(file)
    s3, done = client(app), threading.Event()
    answers = []

    def go_on():
        while not done.is_set():
            answers.append(outcome(s3.get_object, Bucket="kept", Key="k"))

    thread = threading.Thread(target=go_on)
    thread.start()
    told = admin("rotate-key", "--kind", "encryption")
    assert told["key_name"] == "2027" and told["resealed"] >= 3 and told["unreadable"] == 0, told
    assert admin("rotate-key", "--kind", "encryption")["resealed"] == 0, "nothing is left to do"
    done.set()
    thread.join()
    assert set(answers) == {"ok"}, answers
    passed(f"sealed anew, and {len(answers)} requests were answered meanwhile")


{"tokens": tokens, "prepare_token": prepare_token, "kept_token": kept_token, "reseal": reseal, "users": users, "actions": actions, "isolation": isolation, "public": public, "secrets": secrets, "prepare": prepare, "kept": kept, "unknown": unknown}[GROUP]()
