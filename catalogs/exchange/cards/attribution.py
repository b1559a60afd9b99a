"""ATTRIBUTION.md: one entry per credit, source and license, with what the license asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from catalogs.exchange.cards.hub import is_spdx, license_url
from catalogs.exchange.cards.markdown import cell, hours
from catalogs.vocabulary.licenses import License, canonical, licenses

FILE = "ATTRIBUTION.md"


@dataclass(frozen=True)
class Credit:
    """Recordings with the same credit, source and license, as somebody states them; None: nobody does."""

    license: str | None
    attribution: str | None
    source_url: str | None
    recordings: int
    seconds: float


def attribution_lines(name: str, credits: Iterable[Credit]) -> Iterator[str]:
    """Yield the lines of the file. credits: sorted by license."""
    yield f"# Attribution of {cell(name)}"
    yield ""
    yield "As stated with the recordings. Nobody has checked whether the statements are true."
    license: str | None = "\0"
    for credit in credits:
        if credit.license != license:
            license = credit.license
            yield from ("", f"## {_title(license)}", "", f"{_asks(license)}", "")
        words = [cell(credit.attribution, 2000) if credit.attribution else "no credit is stated"]
        words += [f"<{url}>" for url in [address(credit.source_url)] if url]
        count = f"{credit.recordings:,} recording{'' if credit.recordings == 1 else 's'}"
        yield f"* {'; '.join(words)}; {count}, {hours(credit.seconds)} h"


def address(url: str | None) -> str | None:
    """Return a page on the net; None for what is not one, e.g. a path of somebody's machine."""
    if not url or not url.lower().startswith(("https://", "http://", "ftp://", "hf://", "s3://", "gs://", "doi:")):
        return None
    return url.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20")


def _title(license: str | None) -> str:
    if license is None:
        return "No license is stated"
    spdx = canonical(license)
    return f"[{spdx}]({license_url(spdx)})" if is_spdx(spdx) else cell(spdx)


def _asks(license: str | None) -> str:
    """Return what a license asks for, by our table, in one sentence."""
    if license is None:
        return "Nothing is known of what these recordings may be used for."
    known: License | None = licenses().get(canonical(license))
    if known is None:
        return "This license is not in the table of voxmill: read its terms."
    asked = [
        words
        for holds, words in (
            (not known.commercial, "no commercial use"),
            (not known.derivatives, "no changed versions"),
            (known.share_alike, "changed versions under the same license"),
            (known.attribution, "the author is named"),
        )
        if holds
    ]
    return f"Asks: {'; '.join(asked)}." if asked else "Asks nothing of these."
