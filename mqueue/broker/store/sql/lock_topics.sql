-- lock_topics: before the ledger moves outside of a flush: always in this order, so that two brokers cannot lock each other out. Index: topic_pkey.
SELECT id FROM topic WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE
