INSERT INTO category (category_id, name) VALUES (1, 'Deeds'), (90, 'Noir')
  ON CONFLICT (category_id) DO UPDATE SET name = excluded.name;
INSERT INTO language (language_id, name) VALUES (1, 'x') ON CONFLICT DO NOTHING;
