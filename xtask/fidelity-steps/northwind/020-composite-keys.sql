UPDATE order_details SET product_id = 77 WHERE (order_id, product_id) IN (SELECT order_id, min(product_id) FROM order_details GROUP BY order_id HAVING max(product_id) < 77);
DELETE FROM order_details WHERE order_id % 4 = 0;
