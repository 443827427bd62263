ALTER TABLE customer DROP COLUMN fax;
ALTER TABLE customer DROP COLUMN company;
ALTER TABLE customer ADD COLUMN fax varchar(24);
UPDATE customer SET fax = phone;
