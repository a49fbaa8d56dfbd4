"""What campaigns judge by: both are pure.

history.py   what clients saw of a topic, and whether a strict queue could have shown it
rates.py     what a history tells of throughput and of gaps
"""
