"""mqueue and its peers are measured side by side, in turns: `python -m benchmarks peers`.

What happens here. In each round every system has one turn, with a fresh store of its own: A B C, A B C, so that other
work on the machine affects all alike. A turn starts the store, a process that enqueues, and worker processes; it takes
the speeds, the latency of an idle queue, and the processor time of all these processes. What came of it is a file in
`benchmarks/results`, and the tables and the chart of the documentation are made from that file alone.

Which file to open:

    command.py       `peers` and `report`: the rounds, the progress, what is written
    systems.py       which systems there are, on which store, and what each store promises
    environments.py  the interpreters: of the peers, of an older mqueue
    stores.py        a fresh store, or a broker
    processes.py     a process that we started: its output, its processor time, its end
    turn.py          one turn of one system
    results.py       what was measured, its statistics and its file
    report.py        tables of a result, put between the markers of a page
    chart.py         bars of a result, as SVG
"""
