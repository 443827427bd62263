UPDATE big SET id = -id WHERE id % 2 = 0;
UPDATE big SET t = reverse(t) WHERE id % 3 = 0;
DELETE FROM big WHERE id % 5 = 0;
