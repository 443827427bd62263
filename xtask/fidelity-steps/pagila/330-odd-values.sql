UPDATE odd SET f = '-Infinity', d = 1.5, x = '<b/>', j = '{"a": 2,  "b": 1}', p = ROW(NULL, '')::pair;
INSERT INTO odd SELECT * FROM odd;
DELETE FROM odd WHERE ctid IN (SELECT min(ctid) FROM odd WHERE n = 1);
