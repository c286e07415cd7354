"""An invented atlas and a small pretrained model: search learned on a laptop."""
