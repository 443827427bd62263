INSERT INTO playlist_track SELECT 5, track_id FROM track WHERE genre_id = 1 ON CONFLICT DO NOTHING;
INSERT INTO invoice SELECT invoice_id + 10000, customer_id, invoice_date, NULL, billing_city, billing_state, billing_country, billing_postal_code, total * 2 FROM invoice;
