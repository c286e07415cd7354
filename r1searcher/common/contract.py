"""What the contracts of extension points have in common; each package has a module `contract` with its own rules."""


def rule(kept: object, sentence: str) -> None:
    """Raises `AssertionError` with the rule where it is not kept."""
    if not kept:
        raise AssertionError(sentence)
