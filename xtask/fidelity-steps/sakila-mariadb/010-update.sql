UPDATE film SET rental_duration = rental_duration + 1, special_features = CONCAT_WS(',', special_features, 'Trailers') WHERE length > 100;
