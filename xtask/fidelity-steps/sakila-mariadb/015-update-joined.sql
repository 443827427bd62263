UPDATE customer JOIN address USING (address_id) SET customer.active = 0, address.phone = CONCAT('0', LEFT(address.phone, 19)) WHERE address.district = 'California';
