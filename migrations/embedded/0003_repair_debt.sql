-- Live blobs with a shard whose place is zero: not written, lost or damaged, and to be repaired. Few, and asked for often.
CREATE INDEX blobs_in_debt ON blobs (blob) WHERE state = 1 AND instr(places, zeroblob(16)) > 0;
