"""Licenses: spellings of one identifier, conditions in SQL and in Python, and the obligations that a summary states."""

from __future__ import annotations

import re

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.vocabulary.licenses import (
    NOT_STATED,
    WORDS,
    allowed,
    allowed_among_sql,
    allowed_sql,
    canonical,
    licenses,
    summary,
)

SPDX = sorted(licenses())
SPELLINGS = [
    "CC BY 4.0",
    "cc-by-4.0",
    "https://creativecommons.org/licenses/by-nc/3.0/",
    "cc0",
    "Unknown",
    "public domain",
    "",
]
texts = st.one_of(
    st.text(min_size=1).filter(str.strip),
    st.sampled_from([*SPDX, "unknown", "CC BY", "public domain", "GPL-3.0+", "Kelvin K", "İ"]),
    st.from_regex(r"https?://(www\.)?[a-z]{1,5}\.org/licenses/[a-z-]{1,5}/(deed|legalcode)(\.en)?/?", fullmatch=True),
)


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-4.0", "CC-BY-4.0"),
        ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("http://www.creativecommons.org/licenses/by-nc-sa/3.0/legalcode.de", "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/licenses/by-nd/2.5/deed.en", "CC-BY-ND-2.5"),
        ("Creative Commons Attribution 4.0 International (CC BY 4.0)", "CC-BY-4.0"),
        ("CC0", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("Public domain", "LicenseRef-public-domain"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("odc-by", "ODC-By-1.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("GPL-3.0+", "GPL-3.0-or-later"),
        ("Unknown", NOT_STATED),
        # Nothing is inferred: no version, another text (a port to a country's law), an expression.
        ("CC BY", "LicenseRef-cc-by"),
        ("https://creativecommons.org/licenses/by/3.0/us/", "LicenseRef-https-creativecommons.org-licenses-by-3.0-us"),
        ("MIT OR Apache-2.0", "LicenseRef-mit-or-apache-2.0"),
        ("LicenseRef-Studio Contract 7", "LicenseRef-studio-contract-7"),
    ],
)
def test_spellings_of_a_license_are_one_identifier(text: str, spdx: str) -> None:
    assert canonical(text) == spdx


def test_the_four_bits_of_creative_commons_follow_their_names() -> None:
    for spdx, one in licenses().items():
        if spdx.startswith("CC-BY"):
            parts = spdx.split("-")
            assert one.attribution and one.commercial != ("NC" in parts)
            assert one.derivatives != ("ND" in parts) and one.share_alike == ("SA" in parts)
    free = licenses()["CC0-1.0"]
    assert free.commercial and free.derivatives and not free.share_alike and not free.attribution


@given(texts)
def test_any_text_is_an_identifier_and_stays_it(text: str) -> None:
    spdx = canonical(text)
    assert spdx in licenses() or spdx == NOT_STATED or re.fullmatch(r"LicenseRef-[a-z0-9.-]{1,64}", spdx)
    assert canonical(spdx) == spdx


@given(st.sampled_from(SPDX), st.booleans(), st.sampled_from([" ", "-", "_", "  "]))
def test_case_and_punctuation_do_not_matter(spdx: str, upper: bool, between: str) -> None:
    written = (spdx.upper() if upper else spdx.lower()).replace("-", between)
    assert canonical(f" {written} ") == spdx


LISTS = st.lists(
    st.one_of(
        st.sampled_from(
            [*WORDS, *SPDX, "cc0", "CC-BY-*", "*-NC-*", "cc-by-[0-9]*", "LicenseRef-*", "ANY", "'*", NOT_STATED]
        ),
        texts.map(canonical),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), texts.map(canonical), st.sampled_from(SPELLINGS)), min_size=1, max_size=8), LISTS)
def test_the_condition_in_sql_is_the_one_in_python(values: list[str | None], allow: list[str]) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT {allowed_sql(allow)} FROM (SELECT unnest(?) AS license)", [values]
        ).fetchall()
    assert [row[0] for row in rows] == [allowed(value, allow) for value in values]


@settings(max_examples=25)
@given(st.lists(st.one_of(st.none(), texts, st.just("")), min_size=1, max_size=8), LISTS)
def test_among_known_values_any_spelling_counts(values: list[str | None], allow: list[str]) -> None:
    condition = allowed_among_sql(allow, {*values, "MIT"})
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT {condition} FROM (SELECT unnest(?) AS license)", [values]).fetchall()
    assert [row[0] for row in rows] == [allowed(value, allow) for value in values]


def test_a_list_allows_what_it_names() -> None:
    values = [None, "CC0-1.0", "CC BY 4.0", "CC-BY-NC-4.0", "LicenseRef-deal", "unknown"]
    assert [allowed(one, ["commercial"]) for one in values] == [False, True, True, False, False, False]
    assert [allowed(one, ["stated"]) for one in values] == [False, True, True, True, True, False]
    assert [allowed(one, ["any"]) for one in values] == [True] * 6
    assert [allowed(one, ["cc-by-*", "licenseref-Deal"]) for one in values] == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        (["comercial"], "did you mean commercial?"),
        (["CC-BY-40"], "did you mean CC-BY-4.0?"),
        (["lgpl"], "LicenseRef-lgpl"),
        ([" "], "blank"),
        ([], "at least one"),
        ("any", "a list"),
    ],
)
def test_an_entry_that_is_not_known_is_one_line(allow: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        allowed_sql(allow)
    assert "\n" not in str(caught.value)


def test_a_blank_license_is_refused() -> None:
    with pytest.raises(ValueError, match="blank"):
        canonical(" \n")


def test_the_summary_states_the_strictest_first_and_unites_spellings() -> None:
    hours = {
        "CC BY 4.0": 3.0,
        "cc-by-4.0": 1.0,
        None: 0.5,
        "unknown": 0.5,
        "deal": 2.0,
        "CC-BY-NC-ND-4.0": 9.0,
        "CC0": 7.0,
    }
    assert summary(hours) == [
        "1.00 h of data without a license",
        "2.00 h of data whose license is not in the table: read its terms (LicenseRef-deal)",
        "9.00 h of non-commercial data (CC-BY-NC-ND-4.0)",
        "9.00 h of data whose license forbids changes (CC-BY-NC-ND-4.0)",
        "13.00 h of data whose authors must be named (CC-BY-4.0, CC-BY-NC-ND-4.0)",
    ]
    assert summary({"CC0-1.0": 4.0}) == [] == summary({})


@given(st.dictionaries(st.one_of(st.none(), st.sampled_from(SPDX), texts), st.floats(0, 1e4), max_size=6))
def test_a_summary_is_plain_lines(hours: dict[str | None, float]) -> None:
    assert all(line and "\n" not in line for line in summary(hours))
