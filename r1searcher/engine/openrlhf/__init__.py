"""OpenRLHF 0.11.2: the trainer, its command line, its processes, and the patches.

flags        settings and topology -> its command line
algorithms   names of `rl.algorithm` -> its flags
versions     the versions of its packages that the patches were tested with
checkpoints  its checkpoints: the last saved step, and restoring it
main         the child process: Ray, then OpenRLHF's own main
workers      what each process does before it imports OpenRLHF or vLLM
executor     the episode loop as its agent executor
patches/     order (rows as in the file), lora (merged weights), logits (of trained tokens only), updates (Adam, dynamic
             batches), flash_attention (without its package), recording (metrics, stop), cpu (without a GPU)
"""
