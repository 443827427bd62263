ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_invoice_id_fkey, ADD CONSTRAINT invoice_line_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoice ON UPDATE CASCADE ON DELETE CASCADE;
UPDATE invoice SET invoice_id = invoice_id + 1000 WHERE invoice_id < 50;
