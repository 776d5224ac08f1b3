-- A part that was copied may lie in several slices of blobs. One slice stays in blob, blob_offset and blob_length; of
-- several those are NULL and the slices are here, one behind the other: 16 bytes of the blob, then offset and length, big-endian.
ALTER TABLE parts ADD COLUMN slices BLOB;
