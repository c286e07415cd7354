"""Writing traces for the SFT from questions and a retriever."""
