"""`mqueue torture`: real brokers and stores under load, faults injected, everything written down, and judged at the
end.

history.py   what clients saw       judge.py   whether a queue that keeps its promises could have shown it
stage.py     stores, brokers, proxies          faults.py   what is done to them
load.py      producers and workers             scene.py    a stage under load, and its drain
run.py       one run, and its table
"""
