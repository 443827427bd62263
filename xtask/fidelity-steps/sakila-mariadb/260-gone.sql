SET foreign_key_checks = 0;
DROP VIEW actor_info, customer_list, film_list, nicer_but_slower_film_list, sales_by_film_category, actor_names;
DROP TABLE IF EXISTS actor, nothing, category;
