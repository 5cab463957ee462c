"""Whether the book that mdBook has made holds together: every link and picture in its HTML leads to a file in it, and to an id there; and no
page shows a command that mdBook was to carry out. Each alert's entry in the runbook is where the alert says.

    check_book.py FOLDER ALERTS

Called by .ci/run after `mdbook build`. It looks at no other site: whoever reads the book need not be on a network.
"""

import pathlib
import re
import sys
import urllib.parse
from html.parser import HTMLParser

# mdBook's own page for an address that is not there, whose links begin at the site's root.
NOT_A_PAGE = {"404.html"}
# What the whole book has at the very least; with less this has not seen the book.
FEWEST_PAGES, FEWEST_LINKS, FEWEST_ALERTS = 30, 1000, 20
# What mdBook's commands begin with, such as the one that includes a file: docs/book.toml has them switched off.
COMMAND = "{{#"


class Page(HTMLParser):
    """A page's ids, and where it leads to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


def main(folder, alerts):
    root = pathlib.Path(folder).resolve()
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(root.rglob("*.html"))}
    pages = {file: Page(text) for file, text in texts.items()}
    wrong, count = [], 0
    for file, page in pages.items():
        if COMMAND in texts[file]:
            wrong.append(f"{file.relative_to(root)} shows a command of mdBook's, {COMMAND}…")
        if file.name in NOT_A_PAGE:
            continue
        for target in page.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            place = f"{file.relative_to(root)}: {target}"
            path = urllib.parse.unquote(parts.path)
            there = (file.parent / path).resolve() if path else file
            if there.is_dir():
                there = there / "index.html"
            if not there.is_relative_to(root):
                wrong.append(f"{place} leads out of the book")
            elif not there.is_file():
                wrong.append(f"{place} leads to nothing")
            elif parts.fragment and there in pages and urllib.parse.unquote(parts.fragment) not in pages[there].ids:
                wrong.append(f"{place} leads to a page without such an id")
    entries = re.findall(r"runbook_url: docs/runbook\.md#(\S+)", pathlib.Path(alerts).read_text(encoding="utf-8"))
    ids = pages[root / "runbook.html"].ids
    wrong += [f"runbook.html has no entry {entry}" for entry in entries if entry not in ids]
    if len(entries) < FEWEST_ALERTS:
        wrong.append(f"{alerts} leads to {len(entries)} entries: that is not all of it")
    if len(pages) < FEWEST_PAGES or count < FEWEST_LINKS:
        wrong.append(f"{folder} has {len(pages)} pages and {count} links: that is not the whole book")
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(pages)} pages, {count} links, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("name the folder with the book, and the alerts: check_book.py target/book deploy/prometheus/alerts.yml")
    sys.exit(main(*sys.argv[1:]))
