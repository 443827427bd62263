DELETE film_category, film_actor FROM film_category JOIN film_actor USING (film_id) WHERE film_category.category_id = 3;
