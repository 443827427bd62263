ALTER TABLE customers ALTER COLUMN company_name TYPE text COLLATE "C";
CREATE INDEX by_name ON customers (company_name COLLATE "POSIX");
