DROP TABLE film_text;
DROP TABLE payment;
