"""`lunalog bench`: measure a cluster with streams of its own, and prove what was written.

command      parse, run, print          plan        what shall be done
ground       cluster, journals, streams session     phases, signals, stalls, the verdict
writing reading following failing many  the workloads, one a file
sending      how events are sent        schedule    when, in an open loop
chain        what the events hold       verify      reading them back
recorder     what was measured          histogram   latencies
progress     while it runs              result, table, report, plots   when it is over
"""
