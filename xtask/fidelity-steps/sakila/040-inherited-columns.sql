ALTER TABLE payment ADD COLUMN note text DEFAULT '-';
UPDATE payment_p2007_03 SET note = 'march';
