DROP AGGREGATE group_concat(text) CASCADE;
