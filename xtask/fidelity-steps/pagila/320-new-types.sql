CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN posint AS int CHECK (VALUE > 0) NOT NULL;
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE odd (m mood, p pair, n posint, s span, a int[][], j json, jb jsonb, x xml, f float8, i interval, b bit(3), u uuid, t tsvector, r int4range, d numeric);
INSERT INTO odd VALUES ('ok', '(1,"a b")', 5, '[1.5,2)', '{{1,2},{3,NULL}}', '{"b": 1,  "a": 2}', '{"b":1}', '<a>&amp;</a>', 'NaN', '1 mon -3 days', B'101', '00000000-0000-4000-8000-000000000001', 'a:1 b', '[1,5)', 1.50),
  (NULL, NULL, 1, NULL, '{}', NULL, NULL, NULL, '-0', NULL, NULL, NULL, NULL, 'empty', 'NaN');
