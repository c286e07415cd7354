"""Everything that knows OpenRLHF, vLLM or Ray.

    flags      our settings -> OpenRLHF's command line
    launch     that command line as a child process: start, watch, stop, resume, what went wrong
    main       the child process: Ray, then OpenRLHF's own main
    workers    what each Ray worker does before OpenRLHF is imported in it
    watch      a row of metrics a step, the guard over the rollouts, the early end of a stage
    cpu        the adapter for machines without a GPU
    hooks      how `watch` and `cpu` change a name of another package once it is imported
    executor   the episode loop as OpenRLHF's agent executor
    data       what is trained, in which order
    model      a model folder without code and pickles

Nothing here imports torch, ray, vllm or openrlhf at module level, `executor` apart, which OpenRLHF itself loads.
"""
