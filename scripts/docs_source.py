"""The pages of the documentation site, in build/docs: those of docs/, and CONTRIBUTING.md as one of them.

    python scripts/docs_source.py

In the repository CONTRIBUTING.md is one folder above; here links to it, and its own, are those of one folder. Its links
to files that are not pages become plain text.
"""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "build" / "docs"
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)")


def _within_the_site(link: re.Match[str]) -> str:
    text, target = link.groups()
    if target.startswith("#"):
        return link[0]
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(ROOT / "docs", TARGET)
    for page in TARGET.rglob("*.md"):
        text = page.read_text("utf-8")
        page.write_text(text.replace("](../CONTRIBUTING.md", "](contributing.md"), "utf-8")
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (TARGET / "contributing.md").write_text(_LINK.sub(_within_the_site, contributing), "utf-8")


if __name__ == "__main__":
    main()
