DELETE FROM Invoice WHERE InvoiceId % 3 = 0;
