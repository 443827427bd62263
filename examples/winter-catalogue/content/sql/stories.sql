CREATE TABLE story (id INTEGER PRIMARY KEY, title TEXT NOT NULL, page TEXT NOT NULL);
INSERT INTO story (title, page) VALUES ('Where wool comes from', 'stories/wool.html'), ('Snow', 'stories/snow.html');
