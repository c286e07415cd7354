"""Models that retrieval runs itself: encoders of passages and cross-encoders. Only these modules import torch."""
