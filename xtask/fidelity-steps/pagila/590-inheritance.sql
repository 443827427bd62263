CREATE TABLE base (id int PRIMARY KEY, a text);
CREATE TABLE derived (b int) INHERITS (base);
INSERT INTO base VALUES (1, 'x');
INSERT INTO derived VALUES (2, 'y', 3);
