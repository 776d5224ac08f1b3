"""Runs a command under a seccomp profile in Docker's form, by way of libseccomp, which every Debian has.

usage: with_seccomp.py PROFILE WITHOUT COMMAND [ARGUMENT...]

WITHOUT is a system call that is refused although the profile allows it, with all that begin alike, or - for none.
"""

import ctypes
import json
import os
import sys

profile_path, without, *command = sys.argv[1:]
library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p
library.seccomp_init.argtypes = [ctypes.c_uint32]


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp (seccomp.h)."""

    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


library.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)
]
library.seccomp_load.argtypes = [ctypes.c_void_p]

OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


def action(name, errno):
    return {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000 | errno}[name]


with open(profile_path) as file:
    profile = json.load(file)
context = library.seccomp_init(action(profile["defaultAction"], profile["defaultErrnoRet"]))
assert context
known = 0
for rule in profile["syscalls"]:
    comparisons = [
        # For MASKED_EQ Docker writes the mask first and the value second, as libseccomp does.
        Comparison(c["index"], OPERATORS[c["op"]], c["value"], c["valueTwo"]) for c in rule.get("args", [])
    ]
    for name in rule["names"]:
        if without != "-" and name.startswith(without):
            continue
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Not every CPU has every call (negative numbers stand for those of others).
        if number < 0:
            continue
        array = (Comparison * len(comparisons))(*comparisons)
        added = library.seccomp_rule_add_array(
            context, action(rule["action"], rule.get("errnoRet", 1)), number, len(comparisons), array
        )
        assert added == 0, (name, added)
        known += 1
assert known > 150, f"only {known} system calls are known"
loaded = library.seccomp_load(context)
assert loaded == 0, loaded
os.execvp(command[0], command)
