"""The demo: a small pretrained model learns to search an invented atlas on a laptop."""
