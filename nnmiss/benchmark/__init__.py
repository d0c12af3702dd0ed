"""The benchmark: a list of variants becomes jobs, finished jobs one table with statistics over seeds."""
