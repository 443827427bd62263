UPDATE orders SET ship_name = lower(ship_name) WHERE order_id < 10260;
