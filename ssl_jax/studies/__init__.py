"""Studies: several runs over several seeds, evaluated in the same way and compared.

definition: what a study file returns. jobs: its runs, checked. worker: trains and evaluates one of them in a
process of its own. runner: the processes. results: values, standard errors and intervals.
"""
