"""The head of a card as the Hugging Face Hub reads it (read: hub-docs `repositories-licenses`, `datasetcard`, `modelcard`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from catalogs.vocabulary.licenses import NOT_STATED, canonical, licenses

_HUB = {
    **{f"CC-BY-{version}": f"cc-by-{version}" for version in ("2.0", "2.5", "3.0", "4.0")},
    **{f"CC-BY-SA-{version}": f"cc-by-sa-{version}" for version in ("3.0", "4.0")},
    **{f"CC-BY-NC-{version}": f"cc-by-nc-{version}" for version in ("2.0", "3.0", "4.0")},
    **{f"CC-BY-NC-ND-{version}": f"cc-by-nc-nd-{version}" for version in ("3.0", "4.0")},
    **{f"CC-BY-NC-SA-{version}": f"cc-by-nc-sa-{version}" for version in ("2.0", "3.0", "4.0")},
    "CC-BY-ND-4.0": "cc-by-nd-4.0",
    "CC0-1.0": "cc0-1.0",
    "CDLA-Permissive-1.0": "cdla-permissive-1.0",
    "CDLA-Permissive-2.0": "cdla-permissive-2.0",
    "CDLA-Sharing-1.0": "cdla-sharing-1.0",
    "ODC-By-1.0": "odc-by",
    "ODbL-1.0": "odbl",
    "PDDL-1.0": "pddl",
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "GPL-2.0-only": "gpl-2.0",
    "GPL-3.0-only": "gpl-3.0",
}
"""The Hub's names of the licenses of our table that it knows."""


def front_matter(head: Mapping[str, Any]) -> str:
    """Return the head as YAML, without its `---` lines. JSON is YAML: each value keeps its quotes, whatever a name holds."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in head.items())


def license_head(stated: Iterable[str]) -> dict[str, Any]:
    """Return `license` and what belongs to it. stated: identifiers of all parts of a data set; "" for parts without a license.

    Several licenses that the Hub knows are a list. `other` has a name, and a link if it is one license of SPDX. Nothing is
    concluded: parts without a license make it `other`, and no license at all makes it `unknown`.
    """
    found = sorted({canonical(one) if one.strip() else NOT_STATED for one in stated})
    known = [_HUB[one] for one in found if one in _HUB]
    if not found or found == [NOT_STATED]:
        return {"license": "unknown"}
    if len(known) == len(found):
        return {"license": known[0] if len(known) == 1 else known}
    if len(found) > 1:
        return {"license": "other", "license_name": "mixed"}
    head: dict[str, Any] = {"license": "other", "license_name": found[0].lower()}
    return head | ({"license_link": license_url(found[0])} if is_spdx(found[0]) else {})


def is_spdx(identifier: str) -> bool:
    """Return True if our table has an identifier, and it is one of SPDX."""
    return identifier in licenses() and not identifier.startswith("LicenseRef-")


def license_url(identifier: str) -> str:
    """Return the page of an SPDX identifier; any other text as it is."""
    return f"https://spdx.org/licenses/{identifier}.html" if is_spdx(identifier) else identifier


def size_category(clips: int) -> str:
    """Return the Hub's name of a number of rows."""
    for limit, name in ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M")):
        if clips < limit:
            return name
    return "10M<n<100M" if clips < 1e8 else "n>100M" if clips < 1e9 else "n>1B"


def creators_head(text_sources: Mapping[str, float]) -> list[str]:
    """Return `annotations_creators`. text_sources: seconds by where the texts are from, as the column `text_source` says."""
    names = {"asr": ("machine-generated",), "given": ("found",), "repaired": ("found", "machine-generated")}
    return sorted({name for source in text_sources for name in names.get(source, ("other",) if source else ())})
