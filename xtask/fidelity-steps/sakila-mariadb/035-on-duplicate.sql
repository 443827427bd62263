INSERT INTO category (category_id, name) VALUES (1, 'Deeds'), (100, 'Odd') ON DUPLICATE KEY UPDATE name = VALUES(name);
