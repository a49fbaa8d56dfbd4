"""The edge is where shards meet: nothing below it knows more than one.

What happens here. A request asks the shards of its topics, side by side. Whoever has something is heard at once; a
shard that is silent is given up, and named. What was leased for nobody is given back.

Who is authoritative. Each shard for what it has; the edge adds up, and keeps nothing.

What failure does. A shard that is away takes its own topics with it, and no others.

Which file to open:

    joined.py      one answer of several shards, of which some may be away
    give_back.py   releases what was leased for nobody
"""
