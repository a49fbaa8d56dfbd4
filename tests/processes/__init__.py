"""Whole processes for tests: brokers, workers, stores, and what lies between them.

Campaigns and end-to-end tests share them.

    broker.py       a broker: started, stopped, killed, started again; what it left and what it shows
    api.py          a client that speaks plain HTTP, so that tests see statuses and headers
    place.py        a folder with tasks, and workers that run them
    stores.py       PostgreSQL and Redis that no broker started
    replicated.py   a PostgreSQL with a replica that can be promoted
    frozen.py       a process that stands still for a while
    network.py      a network between clients and a broker, which can be cut
    wrong_clock.py  a wall clock that is wrong, and jumps
"""
