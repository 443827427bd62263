INSERT INTO country (country) VALUES ('Nowhere');
INSERT INTO city (city, country_id) VALUES ('Noplace', LAST_INSERT_ID());
INSERT INTO address (address, district, city_id, phone) VALUES ('1 Any Street', 'None', LAST_INSERT_ID(), '');
