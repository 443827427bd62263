ALTER TABLE category DISABLE TRIGGER last_updated;
DROP TRIGGER last_updated ON city;
ALTER TRIGGER audited ON category RENAME TO watched;
ALTER TABLE category ENABLE ALWAYS TRIGGER watched;
