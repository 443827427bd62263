ALTER TABLE category AUTO_INCREMENT = 500;
INSERT INTO category (name) VALUES ('five hundred');
