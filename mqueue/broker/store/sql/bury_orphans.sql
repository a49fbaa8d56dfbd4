-- bury_orphans: deletes outcomes whose enqueue can come no more: it never was on the disk.
DELETE FROM orphan o USING broker b
WHERE b.node = o.origin_node AND b.node = %(node)s AND (o.origin_sequence <= b.position OR o.origin_sequence < %(started)s)
