REPLACE INTO film_text (film_id, title, description) VALUES (1, 'ACADEMY', 'again'), (5000, 'NEW', NULL);
