DROP TABLE film_text;
