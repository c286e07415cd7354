"""A Ray cluster that somebody else started: `engine.ray_address`, or the cluster of a job (`ray job submit`).

address    which cluster a run is trained on
join       joining it, with the settings and the keys that its workers get
facts      what is true on a node; runs there without this package
probe      asks every node, in a process of its own
problems   what is missing where: one sentence each, with the fix
one_node   runs a Python command on one node with GPUs, for the SFT
"""
