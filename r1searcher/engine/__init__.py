"""All code that depends on OpenRLHF, vLLM or Ray.

    topology         the placement: device, nodes, and the GPUs of each part
    training_rows    the training data, in order
    launch           the command line: `launch.sh` in the run folder
    environment      the environment variables of the engine's processes
    cluster/         a Ray cluster that somebody else started: joining it, and asking its nodes what they lack
    process          the child process: start, watch, stop, kill
    failures         one sentence on why it failed
    cpu              settings for machines without a GPU, in addition to patches
    import_patches   replaces names of other packages after their import
    import_check     whether everything that training needs can be imported
    reserved_tokens  one token per protocol tag
    openrlhf/        flags, algorithms, versions, checkpoints, executor, main of the child process, patches
    vllm/            vLLM as a generator of tokens, for training and for evaluation; its patches

Nothing here imports torch, ray, vllm or openrlhf at module level, except `openrlhf.executor`, which OpenRLHF loads.
"""
