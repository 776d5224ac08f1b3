// Buckets and objects by gRPC as a program in Node.js finds them: @grpc/grpc-js, and our own .proto files read as they are.
//
// usage: grpc_node.js PROTO_DIRECTORY HOST:PORT

"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const [protos, address] = process.argv.slice(2);
const MIB = 1 << 20;
const FILES = ["anvil/v1/auth.proto", "anvil/v1/bucket.proto", "anvil/v1/object.proto", "google/rpc/error_details.proto",
    "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto"];
const definition = loader.loadSync(FILES, { includeDirs: [protos], keepCase: true, longs: Number, enums: String, oneofs: true,
    defaults: true });
const { anvil, grpc: standard } = grpc.loadPackageDefinition(definition);
const credentials = grpc.credentials.createInsecure();
const client = (Service) => new Service(address, credentials);
const [auth, buckets, objects] = [anvil.v1.AuthService, anvil.v1.BucketService, anvil.v1.ObjectService].map(client);
const health = client(standard.health.v1.Health);
const reflection = client(standard.reflection.v1.ServerReflection);

const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });
const metadata = new grpc.Metadata();

// The answer of a method that takes one message and gives one.
const ask = (service, method, request, options = within(60)) =>
    new Promise((resolve, reject) =>
        service[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer))));

// All messages of a stream of answers.
async function all(call) {
    const messages = [];
    for await (const message of call) messages.push(message);
    return messages;
}

// What a refusal says: its code, and the reason among its details.
const details = new protobuf.Root();
details.resolvePath = (_, target) => path.join(protos, target);
details.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"], { keepCase: true });
async function refused(code, reason, promise) {
    const error = await promise.then(() => assert.fail(`${reason} was expected`), (error) => error);
    assert.equal(error.code, code, error.message);
    if (reason === null) return;
    const [bytes] = error.metadata.get("grpc-status-details-bin");
    const status = details.lookupType("google.rpc.Status").decode(bytes);
    assert.equal(status.code, code);
    const info = details.lookupType("google.rpc.ErrorInfo").decode(status.details[0].value);
    assert.deepEqual([info.domain, info.reason, info.metadata.request_id.length], ["anvil", reason, 16]);
}

const TABLE = Array.from({ length: 256 }, (_, byte) => {
    for (let bit = 0; bit < 8; bit += 1) byte = byte & 1 ? (byte >>> 1) ^ 0x82f63b78 : byte >>> 1;
    return byte;
});
function crc32c(bytes) {
    let value = 0xffffffff;
    for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
    return (value ^ 0xffffffff) >>> 0;
}

// Sends as fast as the node takes.
async function say(call, message) {
    if (!call.write(message)) await new Promise((resolve) => call.once("drain", resolve));
}

function writing(key, size, options = within(60)) {
    let call;
    const answer = new Promise((resolve, reject) => {
        call = objects.WriteObject(metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
    call.write({ spec: { bucket_name: "node", object_key: key, size } });
    return { call, answer };
}

async function main() {
    const { AWS_ACCESS_KEY_ID: client_id, AWS_SECRET_ACCESS_KEY: client_secret } = process.env;
    await refused(grpc.status.UNAUTHENTICATED, "TOKEN_MISSING", ask(buckets, "ListBuckets", {}));
    const { access_token } = await ask(auth, "GetAccessToken", { client_id, client_secret });
    metadata.set("authorization", `Bearer ${access_token}`);

    // What tools expect of every server.
    assert.equal((await ask(health, "Check", { service: "anvil.v1.ObjectService" })).status, "SERVING");
    const questions = reflection.ServerReflectionInfo(metadata, within(60));
    questions.write({ list_services: "" });
    questions.end();
    const [{ list_services_response: { service } }] = await all(questions);
    assert(service.some(({ name }) => name === "anvil.v1.ObjectService"), JSON.stringify(service));

    await ask(buckets, "CreateBucket", { bucket_name: "node" });
    await refused(grpc.status.ALREADY_EXISTS, "BUCKET_ALREADY_OWNED_BY_YOU", ask(buckets, "CreateBucket", { bucket_name: "node" }));

    // A stream of chunks, each with its checksum, and the whole and a range of it back.
    const whole = Buffer.alloc(5 * MIB + 17);
    for (let at = 0; at < whole.length; at += 1) whole[at] = (at * 7 + (at >> 11)) & 0xff;
    const { call, answer } = writing("large", whole.length);
    for (let at = 0; at < whole.length; at += 256 << 10) {
        const content = whole.subarray(at, at + (256 << 10));
        await say(call, { chunk: { content, crc32c: crc32c(content) } });
    }
    call.write({ finish: { size: whole.length, crc32c: crc32c(whole) } });
    call.end();
    const stored = await answer;
    assert.equal(stored.size, whole.length);
    const named = { bucket_name: "node", object_key: "large" };
    for (const [offset, length] of [[0, 0], [MIB - 1, 2 * MIB], [-100_000, 0]]) {
        const start = offset < 0 ? whole.length + offset : offset;
        const expected = whole.subarray(start, length === 0 ? whole.length : start + length);
        const [{ beginning }, ...parts] = await all(objects.GetObject({ ...named, offset, length }, metadata, within(60)));
        assert.deepEqual([beginning.object.etag, beginning.offset, beginning.length], [stored.etag, start, expected.length]);
        for (const { chunk } of parts) assert.equal(chunk.crc32c, crc32c(chunk.content));
        assert(Buffer.concat(parts.map(({ chunk }) => chunk.content)).equals(expected), `${offset} ${length}`);
    }
    await refused(grpc.status.OUT_OF_RANGE, "OUT_OF_RANGE", all(objects.GetObject({ ...named, offset: 6 * MIB }, metadata, within(60))));
    await refused(grpc.status.NOT_FOUND, "NO_SUCH_OBJECT", ask(objects, "HeadObject", { ...named, object_key: "none" }));

    // Many ranges on one stream, their answers interleaved.
    const ranges = Array.from({ length: 20 }, (_, at) => ({ read_id: at + 1, offset: at * 200_001, length: 150_000 }));
    const reads = objects.BidiRead(metadata, within(60));
    reads.write({ spec: named, ranges: ranges.slice(0, 10) });
    reads.write({ ranges: ranges.slice(10) });
    reads.end();
    const came = new Map(ranges.map(({ read_id }) => [read_id, []]));
    let ended = 0;
    for await (const { chunk, end } of reads) {
        if (chunk) came.get(chunk.read_id).push(chunk.content);
        if (end) {
            assert.equal(end.error, null);
            ended += 1;
        }
    }
    assert.equal(ended, ranges.length);
    for (const { read_id, offset, length } of ranges) {
        assert(Buffer.concat(came.get(read_id)).equals(whole.subarray(offset, offset + length)), `range ${read_id}`);
    }

    // What is taken back, or late, is not there; and the connection goes on.
    const begun = writing("half", 4 * MIB);
    await say(begun.call, { chunk: { content: whole.subarray(0, MIB) } });
    begun.call.cancel();
    await refused(grpc.status.CANCELLED, null, begun.answer);
    await refused(grpc.status.DEADLINE_EXCEEDED, null, writing("half", 4 * MIB, within(0.3)).answer);
    const reading = objects.GetObject(named, metadata, within(60));
    await refused(grpc.status.CANCELLED, null, (async () => {
        for await (const _ of reading) reading.cancel();
    })());
    await refused(grpc.status.NOT_FOUND, "NO_SUCH_OBJECT", ask(objects, "HeadObject", { ...named, object_key: "half" }));
    const head = await ask(objects, "HeadObject", named);
    assert.equal(head.object.etag, stored.etag);
    console.log(`passed: ObjectService with @grpc/grpc-js ${require("@grpc/grpc-js/package.json").version}`);
}

main().then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
