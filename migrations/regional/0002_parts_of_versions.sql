-- The parts of a version by their numbers: without it, a part near the end of ten thousand is found by reading all before it.
CREATE INDEX segments_of_parts ON segments (bucket, version, part) WHERE part IS NOT NULL;
