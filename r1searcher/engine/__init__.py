"""Everything that knows OpenRLHF, vLLM or Ray.

    topology         which device, how many GPUs and nodes, and what is placed on them
    training_rows    what is trained, in which order
    launch           that as a command line: `launch.sh` in the run folder
    environment      the variables with which the engine's processes are started
    process          the child process: start, watch, stop, kill
    failures         one sentence on why it failed
    cpu              what a machine without a GPU needs beside patches
    import_patches   how a name of another package is changed once it is imported
    import_check     whether everything that training needs can be imported
    reserved_tokens  one token per protocol tag
    openrlhf/        flags, algorithms, versions, checkpoints, executor, main of the child process, patches
    vllm/            vLLM as a generator of tokens, for training and for evaluation; its patches

Nothing here imports torch, ray, vllm or openrlhf at module level, except `openrlhf.executor`, which OpenRLHF loads.
"""
