"""gRPC's interoperability cases with grpcio, as its own client has them (grpc/grpc/doc/interop-test-descriptions.md).

usage: grpc_interop.py HOST:PORT CASE..
"""

import sys
import time

import grpc

address, *cases = sys.argv[1:]
Code = grpc.StatusCode
PREFIX = "/grpc.testing.TestService/"


# Of grpc/testing/messages.proto the little that the cases need, by hand: numbers and bytes.
def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value) if value else b""


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def payload(length):
    return text(2, bytes(length))


def fields(message):
    """The fields of a message: numbers, and bytes."""
    at, found = 0, {}

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = read()
        value = read()
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        found[tag >> 3] = value
    return found


def body(message):
    return len(fields(fields(message).get(1, b"")).get(2, b""))


channel = grpc.insecure_channel(address)
empty = channel.unary_unary(PREFIX + "EmptyCall")
unary = channel.unary_unary(PREFIX + "UnaryCall")
incoming = channel.stream_unary(PREFIX + "StreamingInputCall")
outgoing = channel.unary_stream(PREFIX + "StreamingOutputCall")
duplex = channel.stream_stream(PREFIX + "FullDuplexCall")


def wanted(size, length, interval=0):
    """A request for a message of this size, with one of this length."""
    return text(2, number(1, size) + number(2, interval)) + text(3, payload(length))


def fails(code, call, message=None):
    try:
        result = call()
        list(result) if hasattr(result, "__iter__") else None
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert message is None or error.details() == message, error.details()
        return
    raise AssertionError("the call ended well")


def empty_unary():
    assert empty(b"") == b""


def large_unary():
    assert body(unary(number(2, 314159) + text(3, payload(271828)))) == 314159


def client_streaming():
    sizes = (27182, 8, 1828, 45904)
    answer = incoming(iter([text(1, payload(size)) for size in sizes]))
    assert fields(answer)[1] == sum(sizes)


def server_streaming():
    sizes = (31415, 9, 2653, 58979)
    request = b"".join(text(2, number(1, size)) for size in sizes)
    assert tuple(map(body, outgoing(request))) == sizes


class Turns:
    """Questions that are asked one after another's answer."""

    def __init__(self, **more):
        self.next, self.done = None, False
        self.answers = duplex(self, **more)

    def __iter__(self):
        return self

    def __next__(self):
        while self.next is None and not self.done:
            time.sleep(0.001)
        if self.next is None:
            raise StopIteration
        question, self.next = self.next, None
        return question


def ping_pong():
    turns = Turns()
    for size, length in ((31415, 27182), (9, 8), (2653, 1828), (58979, 45904)):
        turns.next = wanted(size, length)
        assert body(next(turns.answers)) == size
    turns.done = True
    assert list(turns.answers) == []


def empty_stream():
    assert list(duplex(iter([]))) == []


def cancel_after_begin():
    turns = Turns()
    call = incoming.future(turns)
    call.cancel()
    turns.done = True
    assert call.cancelled() and call.code() == Code.CANCELLED


def cancel_after_first_response():
    turns = Turns()
    turns.next = wanted(31415, 27182)
    assert body(next(turns.answers)) == 31415
    turns.answers.cancel()
    turns.done = True
    fails(Code.CANCELLED, lambda: turns.answers)


def timeout_on_sleeping_server():
    turns = Turns(timeout=0.001)
    turns.next = wanted(1, 27182, 1_000_000)
    fails(Code.DEADLINE_EXCEEDED, lambda: turns.answers)
    turns.done = True


def echoes(code, message):
    request = text(7, number(1, code.value[0]) + text(2, message.encode()))
    fails(code, lambda: unary(request), message)
    fails(code, lambda: duplex(iter([request])), message)


def status_code_and_message():
    echoes(Code.UNKNOWN, "test status message")


def special_status_message():
    echoes(Code.UNKNOWN, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")


def unimplemented_method():
    fails(Code.UNIMPLEMENTED, lambda: channel.unary_unary(PREFIX + "UnimplementedCall")(b""))
    fails(Code.UNIMPLEMENTED, lambda: channel.unary_unary("/grpc.testing.UnimplementedService/UnimplementedCall")(b""))


for case in cases:
    globals()[case]()
    print(f"{case}: passed")
