"""What the documentation shows is run: its commands, the demo, the examples, the dashboards."""
