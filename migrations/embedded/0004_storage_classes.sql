-- A class other than STANDARD is 2 in storage_class and has its name here.
ALTER TABLE heads ADD COLUMN storage_class_name TEXT;
ALTER TABLE versions ADD COLUMN storage_class_name TEXT;
ALTER TABLE uploads ADD COLUMN storage_class_name TEXT;
-- Of new objects whose request names none; NULL is STANDARD.
ALTER TABLE buckets ADD COLUMN storage_class_name TEXT;
