BEGIN;
UPDATE country SET country = upper(country);
LOCK TABLE language IN SHARE MODE;
SET LOCAL work_mem = '1MB';
CREATE TEMP TABLE tmp AS SELECT 1 AS a;
COMMIT;
