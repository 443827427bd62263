UPDATE film SET rental_duration = rental_duration + 1, special_features = special_features || '{Extra}' WHERE length > 100;
