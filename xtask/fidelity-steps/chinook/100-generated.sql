ALTER TABLE invoice_line ADD COLUMN total numeric GENERATED ALWAYS AS (unit_price * quantity) STORED;
UPDATE invoice_line SET quantity = 3 WHERE invoice_line_id % 9 = 0;
ALTER TABLE invoice_line ALTER COLUMN total DROP EXPRESSION;
UPDATE invoice_line SET total = 0 WHERE invoice_line_id % 18 = 0;
