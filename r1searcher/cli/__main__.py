"""`python -m r1searcher.cli` is `r1s`."""

from r1searcher.cli import main

if __name__ == "__main__":
    main()
