-- drop_workers: deletes workers that have said goodbye. Index: worker_pkey.
DELETE FROM worker w USING unnest(%(names)s::text[], %(namespaces)s::text[]) AS gone (name, namespaces)
WHERE w.name = gone.name AND w.namespaces = string_to_array(gone.namespaces, ' ')
