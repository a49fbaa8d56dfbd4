"""`mqueue torture` puts real brokers and stores under load, with faults, and has a judge at the end.

What happens here. A stage of stores, brokers and proxies is put under load; one fault after the other is done to it;
everything that clients see is written down; after a drain the history is judged.

Who is authoritative. The history is: the judge asks whether a queue that keeps its promises could have shown it.

What failure does. A promise that was broken is named, with the messages and faults around it, and the exit code is 1.
The stage's processes end with the run.

Which file to open:

    run.py          one run, and its table
    scene.py        a stage under load, and its drain
    stage.py        stores, brokers and proxies
    faults.py       what is done to them
    forgetting.py   PostgreSQL goes back
    refusing.py     PostgreSQL refuses some rows
    topics.py       a thousand topics are opened
    damage.py       what a fault took
    load.py         producers and workers
    proxy.py        a way to a server that can be cut and stalled
    history.py      what clients saw
    judge.py        whether the promises allow it; pure
"""
