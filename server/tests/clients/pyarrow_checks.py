"""Checks that pyarrow writes and reads Parquet. Prints each check as it passes."""

import os

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

MIB = 1 << 20

s3 = fs.S3FileSystem(
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    endpoint_override=os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"),
    scheme="http",
    region="us-east-1",
    allow_bucket_creation=True,
    allow_bucket_deletion=True,
)

s3.create_dir("lake")
table = pa.table({"number": range(200_000), "text": [f"row {number} of many" for number in range(200_000)]})

pq.write_table(table, "lake/one.parquet", filesystem=s3)
assert pq.read_table("lake/one.parquet", filesystem=s3).equals(table)
part = pq.read_table("lake/one.parquet", filesystem=s3, columns=["number"], filters=[("number", "<", 10)])
assert part["number"].to_pylist() == list(range(10))
print("a table")

content = os.urandom(12 * MIB + 5)
with s3.open_output_stream("lake/large") as stream:
    for start in range(0, len(content), MIB):
        stream.write(content[start : start + MIB])
with s3.open_input_file("lake/large") as file:
    assert file.size() == len(content)
    assert file.read_at(1000, 5 * MIB) == content[5 * MIB : 5 * MIB + 1000]
    assert file.read() == content
print("a stream in several parts, and ranges of it")

for length in (0, 1, 64 << 10):
    with s3.open_output_stream(f"lake/small/{length}") as stream:
        stream.write(content[:length])
    with s3.open_input_stream(f"lake/small/{length}") as stream:
        assert stream.read() == content[:length]
print("small objects")

with s3.open_output_stream("lake/described", metadata={"Content-Type": "text/x-test"}) as stream:
    stream.write(b"described")
assert s3.open_input_stream("lake/described").metadata()["Content-Type"] == b"text/x-test"
print("metadata")

partitioned = table.append_column("shelf", pa.array([number % 7 for number in range(200_000)]))
ds.write_dataset(partitioned, "lake/set", format="parquet", partitioning=["shelf"], filesystem=s3)
found = ds.dataset("lake/set", filesystem=s3, format="parquet", partitioning=["shelf"])
assert found.count_rows() == 200_000
assert found.count_rows(filter=ds.field("shelf") == 3) == len(range(3, 200_000, 7))
print("a partitioned dataset")

infos = s3.get_file_info(fs.FileSelector("lake", recursive=True))
assert sum(info.is_file for info in infos) == 13, infos
s3.copy_file("lake/large", "lake/copy")
s3.move("lake/copy", "lake/moved")
assert s3.open_input_stream("lake/moved").read() == content
assert s3.get_file_info("lake/copy").type == fs.FileType.NotFound
s3.delete_file("lake/moved")
s3.delete_dir("lake/set")
s3.delete_dir_contents("lake")
s3.delete_dir("lake")
assert s3.get_file_info("lake").type == fs.FileType.NotFound
print("listing, copies and deletions")
