-- slot_map: which shard serves a slot.
SELECT map FROM slot
