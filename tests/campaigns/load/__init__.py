"""What campaigns load a broker with.

Each is a class or a context manager that the campaign starts and ends.

    jobs.py    jobs that note when they begin and end, and workers that run them
    paced.py   messages at a fixed rate
    steady.py  as many messages as the workers keep up with
"""
