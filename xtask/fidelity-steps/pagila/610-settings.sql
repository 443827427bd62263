SET search_path = pg_catalog;
SET DateStyle = 'German, DMY';
SET TimeZone = 'Asia/Tokyo';
SET bytea_output = escape;
SET extra_float_digits = 0;
UPDATE public.rental SET return_date = '24.12.2020 10:00' WHERE rental_id < 100;
