-- next_lease_number: the second half of a receipt, where PostgreSQL leases.
SELECT nextval('lease_number')
