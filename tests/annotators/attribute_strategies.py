"""Attributes as Hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from annotators.schema import Attributes
from catalogs.vocabulary.voices import ACCENTS, CLOSED, LISTS, UNSURE


def attributes() -> st.SearchStrategy[Attributes]:
    """Any attributes of the vocabulary: each unsure or one of its values."""
    single = {name: st.sampled_from((UNSURE, *values)) for name, values in CLOSED.items()}
    several = {
        name: st.lists(st.sampled_from(values), max_size=min(most, 3), unique=True).map(tuple)
        for name, (values, most) in LISTS.items()
    }
    every = sorted({name for names in ACCENTS.values() for name in names})
    return st.builds(
        Attributes,
        **single,
        **several,
        accent=st.sampled_from((UNSURE, *every, "german", "klingon")),
        scenario=st.sampled_from(
            ("", "phone call with a colleague", "an angry (loud) shout", "在电话里交谈", "愤怒地争吵")
        ),
        emphasis=st.just(("xylophone",)),
        evidence=st.just("quagmire heard"),
    )


seeds = st.text("0123456789abcdef", min_size=4, max_size=16)
