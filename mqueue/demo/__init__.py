"""`python -m mqueue.demo`: a broker, a worker and 10,000 jobs, on this machine, in some seconds."""
