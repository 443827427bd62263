SELECT setval('film_film_id_seq', 5000);
CREATE SEQUENCE mine INCREMENT 3 START 7 CYCLE MAXVALUE 100;
SELECT nextval('mine'), nextval('mine');
ALTER SEQUENCE city_city_id_seq RESTART WITH 9000;
DROP SEQUENCE seq CASCADE;
