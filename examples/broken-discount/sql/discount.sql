UPDATE product SET price_cents = max(0, price_cents - 2000);
