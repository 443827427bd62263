UPDATE actor SET first_name = IF(RAND(7) < 0.5, 'HEADS', 'TAILS');
