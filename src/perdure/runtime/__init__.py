"""What makes workflows run in a process: executions of runs, the executor that claims and hosts them, leases."""
