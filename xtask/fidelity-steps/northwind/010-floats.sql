UPDATE order_details SET unit_price = unit_price / 3, discount = 'NaN' WHERE quantity > 20;
UPDATE orders SET freight = 16777216 + 1 WHERE order_id % 5 = 0;
