"""Markdown as readers that aren't ours render it, and words that are up to no good."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from markdown_it import MarkdownIt

READERS = {
    "CommonMark": MarkdownIt("commonmark", {"html": True}),
    "with tables": MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]),
    "all rules": MarkdownIt("js-default", {"html": True}),
}
HARMLESS = {
    *("p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "br", "ul", "ol", "li", "strong"),
    *("h1", "h2", "h3", "details", "summary"),
}
# GitHub's and remark's readers make links of these, the latter after all escapes are read; linkify-it of hosts' names.
AUTOLINK = re.compile(
    r"https?://|ftp://|//\w|www\.|mailto:|xmpp:|[\w.+-]+@[\w-]+\.[\w-]|\w\.(com|org|net|invalid|example|dev|io|ru|de)\b",
    re.I,
)


class Page(HTMLParser):
    """The tags, the addresses and the texts of a rendered page, those in code apart."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.code = ""
        self._depth = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._depth += tag in {"code", "pre"}
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "style"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in {"code", "pre"}

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.code += data
        else:
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.add("!--")

    def handle_decl(self, decl: str) -> None:
        self.tags.add("!")

    def handle_pi(self, data: str) -> None:
        self.tags.add("?")


def check_inert(markdown: str, *, links: tuple[str, ...] = ()) -> list[Page]:
    """Render with every reader; nothing but text may come of it, save for our own `links`."""
    pages: list[Page] = []
    for name, reader in READERS.items():
        page = Page(reader.render(markdown))
        assert page.tags <= HARMLESS | ({"a"} if links else set()), f"{name}: {markdown!r} gave {page.tags}"
        assert page.addresses == list(links), name
        assert not AUTOLINK.search(page.text), f"{name}: {markdown!r} shows {page.text!r} outside of code"
        pages.append(page)
    return pages


EVIL = [
    "![x](http://example.invalid/md.png)",
    "![x][1]\n\n[1]: http://example.invalid/reference.png",
    "[1]: http://example.invalid/defines-a-reference",
    "<img src='http://example.invalid/h.png'>",
    "<IMG SRC=http://example.invalid/h.png onerror=alert(1)>",
    "<img\nsrc=x>",
    "<script>fetch('//example.invalid')</script>",
    "<iframe src=//example.invalid></iframe>",
    "<svg/onload=alert(1)>",
    "<!-- -->",
    "<?php ?>",
    "<style>@import 'http://example.invalid/a.css'</style>",
    "</td></table><img src=x>",
    "<http://example.invalid/auto>",
    "<someone@example.invalid>",
    "[click](javascript:alert(1))",
    "[click](<javascript:alert(1)>)",
    "[click]( data:text/html;base64,PHNjcmlwdD4= )",
    "[a](http://example.invalid 'title')",
    "see http://example.invalid/bare and https://example.invalid.",
    "HTTP://EXAMPLE.INVALID/LOUD",
    "http&#58;//example.invalid/entity",
    "http\\://example.invalid/escaped",
    "www.example.com and example.com/path and a.b.example.org",
    "//example.invalid/without-a-scheme",
    "write to someone@example.com, or mailto:someone@example.com",
    '```mermaid\ngraph TD; A-->B; click A "http://example.invalid"\n```',
    "````\n```\n![x](http://example.invalid/fence.png)\n```",
    "`` ` `` ![x](http://example.invalid/ticks.png) `",
    "`![x](http://example.invalid/code.png)`",
    "`" * 100 + "![x](http://example.invalid/many-ticks.png)",
    "`http://example.invalid/`![x](http://example.invalid/a.png)`",
    "~~~\n![x](http://example.invalid/tildes.png)\n~~~",
    "| a | b |\n|---|---|\n| ![x](http://example.invalid/t.png) | <b> |",
    "a\\| b \\\\| ![x](http://example.invalid/pipes.png)",
    "# heading\n\n- list\n\n> quote\n\n1. number\n\n---\n\n***",
    "    ![x](http://example.invalid/indented.png)",
    "text\n===",
    "&lt;img src=x&gt; &#60;img src=x&#62;",
    "\\<img src=x>",
    "\\![x](http://example.invalid/backslash.png)",
    "\\\\![x](http://example.invalid/two.png)",
    "!\\[x](http://example.invalid/)",
    "$$\\href{http://example.invalid}{x}$$",
    "[^1]: http://example.invalid/footnote",
    "\u202ehttp://example.invalid/\u2066right-to-left",
    "![x](http://example.invalid/nul\x00.png)",
    "\x85![x](http://example.invalid/next-line.png)\u2028<img src=x>",
    ":smile: @everyone *bold* _it_ __strong__ ~~gone~~ a_b_c",
]
