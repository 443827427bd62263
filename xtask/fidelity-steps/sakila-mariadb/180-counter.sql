ALTER TABLE category AUTO_INCREMENT = 200;
INSERT INTO category (name) VALUES ('five hundred');
